/* ---- Self-check: the page at work, and its sums against those of the program. ---- */

const results = { count: 0, failures: [] };

function check(good, what) {
  results.count++;
  if (!good) results.failures.push(what);
}

/* Whether a canvas shows more than one colour. */
function painted(canvas) {
  const { data: pixels } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
  const words = new Uint32Array(pixels.buffer);
  return words.some((word) => word !== words[0]);
}

const close = (a, b, tolerance) =>
  b === null ? !Number.isFinite(a) : Math.abs(a - b) <= tolerance + 1e-9 * Math.abs(b);

/* sum: all choices (or mass) of a layer. cell: one value of a view, by the numbers of row and
 * column. */
function checkValue(want) {
  const sel = { ...state, ...want.selection }, where = JSON.stringify(want);
  if (want.type === 'sum') {
    const [source] = sourcesOf(sel);
    const cells = sum(source, sel.what, sel.layers[0], sel.bins, sel.view);
    const total = cells.reduce((a, b) => a + b, 0);
    return check(close(total, want.value, want.tolerance), 'sum ' + total + ' for ' + where);
  }
  const [table] = tablesOf(sel), { run } = table.parts[0].source;
  const row = { class: () => run.labels.indexOf(want.row), step: () => want.row - sel.bins[0],
                layer: () => want.row - table.first }[sel.view] || (() => want.row);
  const column = sel.view === 'expert' ? want.column - sel.bins[0] : want.column;
  const value = table.values[row() * table.columns + column];
  const steps = table.parts.map(({ source }) => run.halves[source.halves[0]].weightStep);
  const tolerance = want.tolerance + (want.steps || 0) * Math.max(...steps);
  check(close(value, want.value, tolerance), 'value ' + value + ' for ' + where);
}

function checkDrawing(what) {
  const body = $($('tab-' + state.tab).getAttribute('aria-controls'));
  const canvases = [...body.querySelectorAll('canvas')].filter((canvas) => canvas.offsetParent);
  check(body.offsetParent !== null && body.textContent.trim() !== '', what + ': nothing shown');
  for (const canvas of canvases) check(painted(canvas), what + ': an empty canvas');
  return canvases;
}

function checkTitle(what) {
  const sel = selection(), text = $('view-about').textContent;
  for (const part of [HALVES[sel.half].text, UNITS[sel.normalize].text, 'layer', 'step'])
    check(text.includes(part), what + ': the title lacks "' + part + '"');
}

/* Sets a control as a person would. */
function use(input, value) {
  if (input.type === 'radio') input.checked = true;
  else input.value = value;
  input.dispatchEvent(new Event('input', { bubbles: true }));
  input.dispatchEvent(new Event('change', { bubbles: true }));
  render();
}

function checkChoices(tab) {
  for (const name of ['view', 'run', 'half', 'what', 'scale'])
    for (const input of document.querySelectorAll('input[name=' + name + ']'))
      if (!input.disabled && input.offsetParent) {
        use(input);
        check(state[name] === input.value, name + ' does not become ' + input.value);
        checkDrawing(tab + ', ' + name + ' ' + input.value);
        if (tab !== 'overlay') checkTitle(tab + ', ' + name + ' ' + input.value);
      }
  for (const id of ['normalize', 'colormap'])
    for (const option of $(id).offsetParent ? $(id).options : [])
      if (!option.disabled && !$(id).disabled) {
        use($(id), option.value);
        checkDrawing(tab + ', ' + id + ' ' + option.value);
      }
}

function checkSliders(tab) {
  for (const input of document.querySelectorAll('aside input[type=range]')) {
    if (!input.offsetParent || input.matches(':disabled')) continue;
    const before = input.value;
    for (const value of [input.min, input.max, Math.round((+input.min + +input.max) / 2)]) {
      use(input, value);
      checkDrawing(tab + ', ' + input.getAttribute('aria-label') + ' ' + value);
    }
    use(input, before);
  }
  state.frame = null;
  state.layers = [0, first.layers.length - 1];
  state.bins = [0, bins(first) - 1];
  render();
}

function checkPointer(tab) {
  const [panel] = shells.get($('panels'));
  if (!panel) return; /* of a run without images */
  const [place] = panel.tiles, u = ratio();
  const box = panel.canvas.getBoundingClientRect();
  const clientX = box.left + (place.x + place.cw / 2) / u;
  const clientY = box.top + (place.y + place.ch / 2) / u;
  panel.canvas.dispatchEvent(new PointerEvent('pointermove', { clientX, clientY }));
  check(!$('tip').hidden && $('tip').textContent.includes('choices'), tab + ': no tooltip');
  panel.canvas.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight' }));
  check(panel.at && panel.at.join() !== '0,0,0', tab + ': arrow keys do not move over the cells');
  panel.canvas.dispatchEvent(new PointerEvent('pointerleave'));
  check($('tip').hidden, tab + ': the tooltip stays');
}

function checkAnimation(tab) {
  if (!frames() || state.bins[0] === state.bins[1]) return;
  $('play').click();
  check(state.playing, tab + ': does not play');
  for (let i = 0; i < 3; i++) advance();
  check(state.frame !== null, tab + ': no step is shown');
  checkDrawing(tab + ', playing');
  $('play').click();
  check(!state.playing, tab + ': does not stop');
  $('whole').click();
  render();
}

/* The tabs without the common choices have their own, which are made anew at every change. */
function checkOwnChoices(tab) {
  const choices = [...$(tab).querySelectorAll('input')].map((input) =>
    ['[name=' + input.name + '][value="' + input.value + '"]', input.value]);
  const options = [...$(tab).querySelectorAll('option')].map(({ value }) => ['select', value]);
  for (const [selector, value] of [...choices, ...options]) {
    use($(tab).querySelector(selector), value);
    checkDrawing(tab + ', ' + value);
  }
}

function checkTab(tab) {
  $('tab-' + tab).click();
  check(state.tab === tab, 'tab ' + tab);
  checkDrawing(tab);
  if ($('explorer').hidden) return checkOwnChoices(tab);
  checkChoices(tab);
  const views = tab === 'overlay' ? [null] : document.querySelectorAll('input[name=view]');
  for (const input of views) {
    if (input) use(input);
    checkSliders(tab);
    checkPointer(tab);
    checkAnimation(tab);
  }
}

function selftest() {
  try {
    data.checks.forEach(checkValue);
    tabIds().forEach(checkTab);
  } catch (error) {
    results.failures.push(String(error && error.stack || error));
  }
  report();
}

function report() {
  const bad = [...results.failures, ...complaints];
  document.body.append(el('pre', { id: 'selftest-result' }, bad.length
    ? 'failed: ' + clean(bad.slice(0, 50).join('; ')) : 'ok ' + results.count + ' checks'));
}
