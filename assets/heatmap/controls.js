/* ---- Controls. ---- */

const TABS = ['maps', 'overlay', 'numbers', 'difference', 'similarity', 'run'];
const tabIds = () => TABS.filter((tab) => !$('tab-' + tab).hidden);
let waiting = false;

function render() {
  waiting = false;
  updateControls();
  const draw = { maps: drawMaps, difference: drawMaps, overlay: drawOverlay, numbers: drawNumbers,
                 similarity: drawSimilarity, run: drawRun };
  draw[state.tab]();
}

function soon() {
  if (!waiting) requestAnimationFrame(() => { if (waiting) render(); });
  waiting = true;
}

function selectTab(tab) {
  state.tab = tab;
  for (const other of TABS) {
    const button = $('tab-' + other), chosen = other === tab;
    button.setAttribute('aria-selected', chosen);
    button.tabIndex = chosen ? 0 : -1;
    if (chosen) $(button.getAttribute('aria-controls')).setAttribute('aria-labelledby', button.id);
  }
  const shown = $('tab-' + tab).getAttribute('aria-controls');
  for (const id of ['explorer', 'numbers', 'similarity', 'run']) $(id).hidden = id !== shown;
  if (!frames()) stop();
  render();
}

function bindTabs() {
  for (const tab of TABS) $('tab-' + tab).addEventListener('click', () => selectTab(tab));
  document.querySelector('.tabs').addEventListener('keydown', (event) => {
    const list = tabIds(), at = list.indexOf(state.tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at + list.length - 1, Home: 0,
                 End: list.length - 1 };
    if (!(event.key in to)) return;
    event.preventDefault();
    const tab = list[to[event.key] % list.length];
    selectTab(tab);
    $('tab-' + tab).focus();
  });
}

function bindRadios(name) {
  for (const input of document.querySelectorAll('input[name=' + name + ']'))
    input.addEventListener('change', () => {
      state[name] = input.value;
      if (!frames()) stop();
      soon();
    });
}

/* Two sliders on one line, for the ends of a range. */
function bindRange(field, key, count, text) {
  const box = $(field).querySelector('.two');
  const ends = ['First', 'Last'].map((end) => el('input', { type: 'range', min: 0, max: count - 1,
    'aria-label': end + ' ' + RANGES[key] }));
  ends.forEach((input, side) => input.addEventListener('input', () => {
    const pair = state[key];
    pair[side] = Number(input.value);
    if (pair[0] > pair[1]) pair[1 - side] = pair[side];
    soon();
  }));
  box.append(...ends);
  return () => {
    const at = (v) => count > 1 ? 100 * v / (count - 1) + '%' : '0%';
    ends.forEach((input, side) => {
      input.value = state[key][side];
      input.setAttribute('aria-valuetext', text(state[key]));
    });
    /* where both ends meet at the right, only the left one can move */
    ends[0].style.zIndex = state[key][0] === count - 1 ? 2 : 1;
    ends[1].style.zIndex = 1;
    box.style.setProperty('--from', at(state[key][0]));
    box.style.setProperty('--to', at(state[key][1]));
    $(field).querySelector('output').textContent = text(state[key]);
  };
}

let updateLayers, updateSteps;

function bindControls() {
  ['view', 'run', 'half', 'what', 'scale'].forEach(bindRadios);
  for (const id of ['normalize', 'colormap'])
    $(id).addEventListener('change', () => { state[id] = $(id).value; soon(); });
  $('colormap').append(...Object.keys(data.colormaps).map((name) =>
    el('option', { value: name }, name === 'difference' ? 'diverging around 1' : name)));
  updateLayers = bindRange('layers', 'layers', first.layers.length,
                           (pair) => layersName(first, pair));
  updateSteps = bindRange('steps', 'bins', bins(first), (pair) => stepsName(first, ...pair));
  const slider = (id, set) => $(id).addEventListener('input', () => {
    set(Number($(id).value));
    soon();
  });
  slider('zoom', (value) => { state.zoom = value / 100; });
  slider('opacity', (value) => { state.opacity = value / 100; });
  slider('speed', (value) => { state.speed = value; });
  slider('frame', (value) => { stop(); state.frame = value; });
  $('play').addEventListener('click', () => { if (state.playing) stop(); else play(); soon(); });
  $('whole').addEventListener('click', () => { stop(); state.frame = null; soon(); });
  bindTabs();
}

/* Controls follow the state; those that act on nothing now are off. */
function updateControls() {
  for (const field of document.querySelectorAll('[data-for]'))
    field.hidden = !field.dataset.for.split(' ').includes(state.tab);
  const both = first.halves.length > 1, overlaid = state.tab === 'overlay';
  for (const name of ['view', 'run', 'half', 'what', 'scale'])
    for (const input of document.querySelectorAll('input[name=' + name + ']')) {
      input.checked = input.value === state[name];
      if (name === 'half')
        input.disabled = (!both && input.value !== 'cond') || (input.value === 'difference' &&
          (overlaid || (state.tab === 'difference' && state.run === 'difference')));
      if (name === 'what')
        input.disabled = input.value === 'mass' && !data.runs.every((run) => run.mass);
    }
  $('normalize').value = state.normalize;
  $('colormap').value = state.colormap;
  $('colormap').disabled = subtracts(selection());
  const diverging = $('colormap').querySelector('[value=difference]');
  diverging.disabled = UNITS[state.normalize].centre === undefined;
  $('steps').disabled = state.view === 'class' && !overlaid;
  $('layers').disabled = first.layers.length < 2;
  $('opacity-field').hidden = !picture || !overlaid;
  $('opacity-shown').textContent = Math.round(100 * state.opacity) + ' %';
  $('zoom-shown').textContent = Math.round(100 * state.zoom) + ' %';
  updateLayers();
  updateSteps();
  updatePlayer();
}

function updatePlayer() {
  const [b0, b1] = state.bins, shown = state.frame;
  $('player').hidden = !frames() || b0 === b1;
  if (shown !== null) state.frame = clamp(shown, b0, b1);
  $('frame').min = b0;
  $('frame').max = b1;
  $('frame').value = state.frame === null ? b0 : state.frame;
  $('play').textContent = state.playing ? 'Pause' : 'Play';
  $('pace').textContent = state.speed + ' a second';
  $('player').querySelector('output').textContent =
    state.frame === null ? 'summed' : stepsName(first, state.frame, state.frame);
}

/* ---- Animation. ---- */

let timer = 0;

function advance() {
  const [b0, b1] = state.bins;
  state.frame = state.frame === null || state.frame >= b1 ? b0 : state.frame + 1;
  render();
}

function play() {
  state.playing = true;
  const tick = () => {
    advance();
    if (state.playing) timer = setTimeout(tick, 1000 / state.speed);
  };
  timer = setTimeout(tick, 0);
}

function stop() {
  state.playing = false;
  clearTimeout(timer);
}
