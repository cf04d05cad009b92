(clip) => {
  if (!clip) return;
  const bytes = Uint8Array.from(atob(clip), (sign) => sign.charCodeAt(0));
  window.geliPlay(new Blob([bytes], {type: 'video/mp4'}));
}
