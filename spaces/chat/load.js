element.addEventListener('change', async (event) => {
  const file = event.target.files && event.target.files[0];
  if (!file) return;
  const text = file.size > 500000 ? '' : await file.text();
  event.target.value = '';
  trigger('opened', {text, bytes: file.size});
});
