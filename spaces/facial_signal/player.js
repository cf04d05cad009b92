const player = () => document.querySelector('#player video');
let url = null;
const show = (blob) => {
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(blob); player().src = url;
};
window.geliPlay = show;
const chosen = (files) => { if (files && files[0] && player()) show(files[0]); };
document.addEventListener('change', (event) => {
  if (event.target.matches && event.target.matches('#video input[type=file]')) chosen(event.target.files);
}, true);
document.addEventListener('drop', (event) => {
  if (event.target.closest && event.target.closest('#video')) chosen(event.dataTransfer.files);
}, true);
const cursor = () => {
  const plot = document.querySelector('#timeline svg'), line = plot && plot.querySelector('.f-cursor');
  if (!line || !player()) return;
  const {left, right, end} = plot.dataset;
  const x = Number(left) + (right - left) * Math.min(1, player().currentTime / end);
  line.setAttribute('x1', x); line.setAttribute('x2', x);
};
const tick = () => { cursor(); if (player() && !player().paused) requestAnimationFrame(tick); };
for (const name of ['timeupdate', 'seeked', 'play']) element.addEventListener(name, tick, true);
const go = (seconds) => { if (player() && player().src) { player().currentTime = seconds; cursor(); } };
const act = (event) => {
  const row = event.target.closest('#table [data-at]');
  if (row) { go(Number(row.dataset.at)); return; }
  const plot = event.type === 'click' && event.target.closest('#timeline svg');
  if (!plot) return;
  const {left, right, end} = plot.dataset, area = plot.getBoundingClientRect();
  const x = (event.clientX - area.left) * plot.viewBox.baseVal.width / area.width;
  go(Math.min(Math.max((x - left) / (right - left), 0), 1) * end);
};
document.addEventListener('click', act);
document.addEventListener('keydown', (event) => { if (event.key === 'Enter') act(event); });
