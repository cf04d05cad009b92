const tell = (act, index, text) => trigger('act', {act, index, text: text || ''});
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button) return;
  const index = Number(button.dataset.index);
  if (button.dataset.act !== 'edit') { tell(button.dataset.act, index); return; }
  const text = element.querySelector(`[data-text="${index}"]`);
  const field = document.createElement('textarea');
  field.className = 'g-edit'; field.value = text.textContent; field.rows = 3; field.maxLength = 1000;
  field.setAttribute('aria-label', 'Edit message ' + (index + 1));
  const buttons = document.createElement('div'); buttons.className = 'g-foot';
  const back = () => { field.remove(); buttons.remove(); text.hidden = false; button.focus(); };
  const save = () => { if (field.value.trim()) tell('edit', index, field.value); };
  for (const [label, action] of [['Save and rescore', save], ['Cancel', back]]) {
    const other = document.createElement('button');
    other.type = 'button'; other.className = 'g-act' + (action === save ? ' g-main' : ''); other.textContent = label;
    other.addEventListener('click', (inner) => { inner.stopPropagation(); action(); });
    buttons.append(other);
  }
  field.addEventListener('keydown', (key) => {
    if (key.key === 'Escape') back();
    if (key.key === 'Enter' && !key.shiftKey) { key.preventDefault(); save(); }
  });
  text.hidden = true; text.after(field, buttons); field.focus();
});
const down = () => { const box = element.querySelector('.g-thread'); if (box) box.scrollTop = box.scrollHeight; };
watch('value', down); down();
