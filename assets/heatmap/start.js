/* ---- Start. ---- */

function headline(run) {
  const get = (name) => (run.settings.find(([key]) => key === name) || [])[1];
  return [get('model.path'), get('sampler') && get('sampler') + ', ' + run.steps + ' steps',
    get('cfg_scale') && 'guidance ' + get('cfg_scale'),
    run.images.toLocaleString('en') + (run.images === 1 ? ' image' : ' images'),
    run.layers.length + ' layers of ' + run.experts + ' experts' +
      (run.topK ? ', top ' + run.topK : '')].filter(Boolean).join(' \u00b7 ');
}

function settingsOf(run) {
  try {
    return flatten({ ...JSON.parse(run.meta), class_names: {} });
  } catch (error) {
    return [];
  }
}

/* The image comes as deflated differences from the pixel to the left. */
async function loadPicture({ z, width, height }) {
  const bytes = await inflate(z), canvas = el('canvas', { width, height });
  const context = canvas.getContext('2d'), image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++)
    for (let c = 0; c < 4; c++) {
      if (c < 3 && i % width) bytes[3 * i + c] += bytes[3 * i + c - 3];
      image.data[4 * i + c] = c < 3 ? bytes[3 * i + c] : 255;
    }
  context.putImageData(image, 0, 0);
  return canvas;
}

async function start() {
  data = JSON.parse($('data').textContent);
  for (const run of data.runs) {
    for (const half of run.halves) await unpackHalf(run, half);
    run.settings = settingsOf(run);
  }
  first = data.runs[0];
  names = new Map(data.classNames.map(([label, name]) => [label, clean(name)]));
  if (data.overlay) {
    picture = await loadPicture(data.overlay.image);
    overlay = data.overlay.run;
    if (overlay) for (const half of overlay.halves) await unpackHalf(overlay, half);
  }
  Object.assign(state, { layers: [0, first.layers.length - 1], bins: [0, bins(first) - 1],
                         run: data.runs[1] ? 'difference' : 'first' }, data.initial);
  document.title = $('title').textContent = clean(data.title);
  $('about').textContent = headline(first);
  $('notes').hidden = !data.notes.length;
  $('notes').append(...data.notes.map((note) => el('li', {}, clean(note))));
  $('tab-difference').hidden = !data.runs[1];
  $('tab-similarity').hidden = !data.similarity;
  bindControls();
  const [tab, view] = location.hash.slice(1).split('/'); /* #numbers, #maps/class */
  if (view in VIEWS) state.view = view;
  selectTab(tabIds().includes(tab) ? tab : data.runs[1] ? 'difference' : 'maps');
  addEventListener('resize', soon);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', soon);
  if (location.hash === '#selftest') selftest();
}

start().catch((error) => {
  $('about').textContent = 'This page cannot be shown: ' + error.message +
    (window.DecompressionStream ? '' : '. It needs a browser of 2023 or later.');
  results.failures.push(String(error));
  if (location.hash === '#selftest') report();
});
