// Chatbot reports copies of messages that are text alone, and a reply here also has its number.
document.addEventListener('copy', () => {
  const text = String(document.getSelection());
  if (text.trim() && document.getSelection().anchorNode?.parentElement?.closest('#chat')) trigger('copied', {text});
});
