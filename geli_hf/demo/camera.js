// Two small grey frames a second, each an event of its own: a stream of Gradio would hold a place in the queue.
const button = element.querySelector('button'), video = element.querySelector('video');
const note = element.querySelector('[role=status]'), canvas = document.createElement('canvas');
let timer = null;
const stop = (text) => {
  clearInterval(timer); timer = null;
  (video.srcObject ? video.srcObject.getTracks() : []).forEach((track) => track.stop());
  video.srcObject = null; video.hidden = true; button.textContent = 'Use my camera'; note.textContent = text;
};
const start = async () => {
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({video: {width: 640, height: 480}, audio: false});
  } catch (error) {
    stop(error && error.name === 'NotAllowedError'
      ? 'The camera was refused. Allow it in the settings of this page in your browser, and try again.'
      : 'There is no camera, or another program uses it.');
    return;
  }
  video.hidden = false; button.textContent = 'Stop the camera'; note.textContent = '';
  await video.play();
  canvas.width = 480; canvas.height = Math.round(480 * video.videoHeight / video.videoWidth) || 360;
  timer = setInterval(() => {
    canvas.getContext('2d').drawImage(video, 0, 0, canvas.width, canvas.height);
    trigger('frame', {url: canvas.toDataURL('image/jpeg', 0.8)});
  }, 500);
};
button.addEventListener('click', () => timer ? stop('') : start());
