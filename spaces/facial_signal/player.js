// Plays a recording's numbers: a drawn face, the words, the rating so far, and the video where the browser can show it.
const scene = element.closest('.tabitem') || document.body;
const find = (selector, place = element) => place.querySelector(selector);
const [button, range, clock, said, trouble, face] =
  ['button', 'input', 'output', '.f-said', '.f-trouble', '.f-face'].map((selector) => find(selector));
const video = find('video'), player = find('.f-player'), calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
const SPEED = 2; // without a video
let given = null, track = null, time = 0, playing = false, before = 0;

const value = (values) => {
  const next = track.times.findIndex((each) => each > time);
  if (next <= 0) return values[next ? values.length - 1 : 0];
  const [a, b] = [values[next - 1], values[next]], [from, to] = [track.times[next - 1], track.times[next]];
  return a === null || b === null || to - from > 3 ? null : a + (b - a) * (time - from) / (to - from);
};
const write = (place, text) => { if (place && place.textContent !== text) place.textContent = text; };
const draw = () => {
  const smile = value(track.smile), mood = value(track.valence);
  face.classList.toggle('f-unseen', smile === null);
  // Without negative emotions valence is the smile; 0 is a straight mouth.
  const curve = smile === null ? 0 : 22 * smile + 14 * Math.min(0, mood === null ? 0 : mood), frown = Math.max(0, -(mood || 0));
  find('.f-mouth').setAttribute('d', `M30 ${68 - curve / 4}Q50 ${68 + curve} 70 ${68 - curve / 4}`);
  const brows = element.querySelectorAll('.f-brow');
  brows[0].setAttribute('d', `M26 ${30 - 3 * frown}Q34 ${26 + 3 * frown} 42 ${29 + 7 * frown}`);
  brows[1].setAttribute('d', `M58 ${29 + 7 * frown}Q66 ${26 + 3 * frown} 74 ${30 - 3 * frown}`);
  const turn = track.turns.findLast(([at]) => at <= time);
  write(said, turn ? `${turn[1] ? 'Partner' : 'Listener'}: ${turn[2]}` : smile === null ? 'No face is seen.' : '');
  said.classList.toggle('f-partner', !!turn && turn[1]);
  scene.querySelectorAll('tr[data-at]').forEach((row) =>
    row.classList.toggle('f-here', !!turn && Number(row.dataset.at).toFixed(2) === turn[0].toFixed(2)));
  const line = find('.f-now', scene), plot = find('.f-plot', scene);
  if (line) {
    const [left, right] = [Number(plot.dataset.left), Number(plot.dataset.right)];
    const x = left + (right - left) * Math.min(1, time / track.last);
    line.setAttribute('x1', x); line.setAttribute('x2', x);
  }
  if (track.marks) for (const name of ['words', 'both']) {
    const done = time >= track.last ? track.marks.length : track.marks.filter((at) => at <= time).length;
    write(find(`[data-number=${name}] span`, scene), track[name][done].toFixed(2));
  }
  range.value = time;
  const seconds = Math.floor(time);
  write(clock, `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`);
};
const set = (on) => {
  playing = on && !!track; before = performance.now(); write(button, playing ? 'Pause' : 'Play');
  if (!video.hidden) playing ? video.play().catch(() => {}) : video.pause();
  if (playing) requestAnimationFrame(step);
};
const step = (now) => {
  if (!playing || !element.isConnected) return;
  if (element.offsetParent) time = video.hidden ? time + SPEED * (now - before) / 1000 : video.currentTime;
  before = now;
  if (time >= track.last || (!video.hidden && video.ended)) { time = track.last; set(false); }
  draw();
  if (playing) requestAnimationFrame(step);
};
const seek = (to) => { if (!track) return; time = to; if (!video.hidden) video.currentTime = to; draw(); };
const load = () => {
  const place = find('[data-track]', scene), text = place ? place.dataset.track : null;
  if (text === given) return;
  given = text; track = text && JSON.parse(text);
  player.classList.toggle('f-ready', !!track);
  if (!track) { set(false); write(said, ''); return; }
  range.max = track.last; time = Math.min(time, track.last);
  draw();
  if (!calm) set(true); else seek(track.last);
};
// The browser plays the visitor's own file: the server has deleted its copy.
const show = (file) => {
  if (video.src) URL.revokeObjectURL(video.src);
  video.hidden = !file; write(trouble, ''); time = 0;
  player.classList.toggle('f-filmed', !!file);
  file ? video.src = URL.createObjectURL(file) : video.removeAttribute('src');
};
const unshown = () => {
  if (!video.hasAttribute('src') || (video.readyState && video.videoWidth)) return;
  show(null);
  write(trouble, 'Your browser can’t show this video; it may be HEVC. Its numbers are read all the same.');
};
video.addEventListener('error', unshown);
video.addEventListener('loadedmetadata', unshown);
const chosen = (event, files) => { if (event.target.closest && event.target.closest('#video') && files && files[0]) show(files[0]); };
scene.addEventListener('change', (event) => chosen(event, event.target.files), true);
scene.addEventListener('drop', (event) => chosen(event, event.dataTransfer && event.dataTransfer.files), true);
scene.addEventListener('click', (event) => {
  const place = event.target.closest('[data-at]');
  if (place) seek(Number(place.dataset.at));
  if (event.target.closest('#video button[aria-label]') && !event.target.closest('[data-at]')) show(null);
}, true);
button.addEventListener('click', () => { if (!playing && track && time >= track.last) seek(0); set(!playing); });
range.addEventListener('input', () => seek(Number(range.value)));
new MutationObserver(load).observe(scene, {childList: true, subtree: true, attributes: true, attributeFilter: ['data-track']});
load();
