const place = () => {
  const camera = document.querySelector('#camera'), video = camera && camera.querySelector('video');
  const told = element.querySelector('[data-box]');
  let box = camera && camera.querySelector('.f-box');
  if (!video || !told || !told.dataset.box || !video.videoWidth) { if (box) box.remove(); return; }
  const home = video.parentElement;
  if (!box) { box = document.createElement('div'); box.className = 'f-box'; box.setAttribute('aria-hidden', 'true'); }
  if (box.parentElement !== home) { home.style.position = 'relative'; home.append(box); }
  const inside = video.getBoundingClientRect(), around = home.getBoundingClientRect();
  const scale = Math.min(inside.width / video.videoWidth, inside.height / video.videoHeight);
  const width = video.videoWidth * scale, height = video.videoHeight * scale;
  const left = inside.left - around.left + (inside.width - width) / 2;
  const top = inside.top - around.top + (inside.height - height) / 2;
  const [x, y, w, h] = told.dataset.box.split(',').map(Number);
  Object.assign(box.style, {left: left + x * width + 'px', top: top + y * height + 'px', width: w * width + 'px',
    height: h * height + 'px'});
};
watch('value', place); window.addEventListener('resize', place);
