// Chatbot's own Copy leaves out replies, since they hold HTML too. A selection that is copied counts as well.
const note = (foot) => {
  const button = foot && foot.querySelector('.g-copy');
  if (button) trigger('copied', {index: Number(button.dataset.index)});
};
document.addEventListener('click', async (event) => {
  const button = event.target.closest('.g-copy');
  if (!button) return;
  const text = button.closest('.bot').querySelector('.message-content').innerText.replaceAll('\u2060', '');
  await navigator.clipboard.writeText(text).catch(() => {});
  note(button.parentElement);
});
document.addEventListener('copy', () => {
  const place = document.getSelection().anchorNode;
  note(place && place.parentElement && place.parentElement.closest('#chat .bot'));
});
