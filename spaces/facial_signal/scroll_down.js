watch('value', () => { const box = element.querySelector('.g-thread'); if (box) box.scrollTop = box.scrollHeight; });
