(file) => {
  if (!file) return;
  const [name, url] = JSON.parse(file);
  const link = document.createElement('a');
  link.href = url; link.download = name; document.body.append(link); link.click(); link.remove();
}
