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
// Gradio calls the starters a list, but none of them an item of it.
const mend = () => document.querySelectorAll('#chat .examples[role=list]').forEach((each) => {
  each.setAttribute('role', 'group'); each.setAttribute('aria-label', 'Ways to begin');
});
new MutationObserver(mend).observe(document.body, {childList: true, subtree: true});
mend();
