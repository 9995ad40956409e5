/* ---- Heatmaps. ---- */

const zoomed = (size) => size * state.zoom;

/* Width and height of a cell in CSS pixels: panels of a useful width that fill the room. */
function cellSize(sel, rows, columns, room, gutter) {
  if (sel.view === 'layer')
    return [clamp(Math.floor(zoomed(Math.min(room - gutter, 900)) / columns), 3, 160),
            clamp(Math.floor(zoomed(420) / rows), 3, 34)];
  const gap = 8 + 22, wish = zoomed(sel.view === 'expert' ? 250 : 140);
  const across = Math.max(1, Math.floor((room + gap) / (gutter + gap + wish)));
  const width = Math.max(wish, Math.min((room + gap) / across - gap - gutter, 1.6 * wish));
  return [clamp(Math.floor(width / columns * ratio()) / ratio(), 1, 60),
          clamp(Math.floor(zoomed(sel.view === 'expert' ? 150 : 340) / rows), 1, 26)];
}

/* Maps of all experts side by side, as many in a row as there is room for. */
function mapSpec(sel, table, room) {
  const { run } = table.parts[0].source, side = run.side, E = run.experts;
  const wide = clamp(Math.floor((room - 16) / Math.min(E, 8)) - 8, 40, 150) * state.zoom;
  const cell = Math.max(1, Math.floor(wide / side)), u = ratio();
  const across = Math.max(1, Math.floor(room / (Math.round(cell * u) / u * side + 8)));
  const tiles = range(E).filter((e) => e < run.layerExperts[table.layer]).map((e) => ({
    title: e === run.uncondExpert ? 'unconditional' : 'expert ' + e, rows: side, columns: side,
    at: (i, j) => table.values[(i * side + j) * E + e],
    info: (i, j) => describe(sel, table, i * side + j, e),
  }));
  return { title: capital(layerName(run, table.layer)), tiles, cell: [cell, cell],
           perRow: Math.min(across, E) };
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function gridSpec(sel, table, room) {
  const { run } = table.parts[0].source, { rows, columns } = table, kind = unitOf(sel).kind;
  const label = (i) => rowLabel(sel, table, i);
  const at = (i, j) => table.values[i * columns + j];
  return {
    title: table.layer === null ? '' : capital(layerName(run, table.layer)),
    tiles: [{ rows, columns, at, textRoom: 40, info: (i, j) => describe(sel, table, i, j),
              text: sel.view === 'layer' && ((i, j) => format(at(i, j), kind)) }],
    rowLabel: label, columnLabel: (j) => columnLabel(sel, table, j),
    rowAxis: VIEWS[sel.view].rows, columnAxis: VIEWS[sel.view].columns,
    cell: cellSize(sel, rows, columns, room, gutterOf(range(rows).map(label), true) / ratio()),
    perRow: 1,
  };
}

const specOf = (sel, table, room) =>
  (sel.view === 'token' ? mapSpec : gridSpec)(sel, table, room);

/* What is drawn now. A step shown by itself replaces the range of steps. */
function selection() {
  const run = state.tab === 'difference' ? state.run : 'first';
  const single = state.frame !== null && frames();
  return { ...state, run, bins: single ? [state.frame, state.frame] : state.bins };
}

/* Whether the view can show steps one by one. */
const frames = () =>
  state.tab === 'overlay' || state.view === 'token' || state.view === 'layer';

function aboutSelection(sel) {
  const run = sourcesOf(sel)[0].run, [b0, b1] = sel.bins;
  const runs = { difference: 'first minus second run, ', first: '', second: 'second run, ' };
  return [
    (runs[sel.run] || '') + HALVES[sel.half].text,
    sel.view === 'class' ? 'all ' + run.steps + ' steps'
      : stepsName(run, b0, b1) + (b0 === b1 ? ', ' + timeOf(run, b0) : ''),
    layersName(run, sel.layers),
    ...(state.tab === 'overlay' ? [] : ['normalised: ' + (UNITS[sel.normalize].text || 'not')]),
    (sel.what === 'mass' ? 'gate mass' : 'choices') + ' of ' + run.images.toLocaleString('en') +
      (run.images === 1 ? ' image' : ' images'),
  ].join(' \u00b7 ');
}

/* One scale for all steps of an animation, so that colours keep their meaning. */
let framesKey, framesScales;

function frameScales(sel, make) {
  const key = JSON.stringify([sel.view, sel.run, sel.half, sel.what, sel.normalize, sel.scale,
                              sel.colormap, sel.layers, state.bins]);
  if (key !== framesKey) {
    const [b0, b1] = state.bins, lists = [];
    for (let b = b0; b <= b1; b++)
      tablesOf({ ...sel, bins: [b, b] }).forEach((table, n) => {
        (lists[n] = lists[n] || []).push(table.values);
      });
    framesScales = make(lists);
    framesKey = key;
  }
  return framesScales;
}

function scalesOf(sel, tables) {
  const [map, centre] = mapOf(sel);
  const make = (lists) => sel.scale === 'shared' || lists.length === 1
    ? lists.map(((scale) => () => scale)(scaleOf(lists.flat(), map, centre)))
    : lists.map((list) => scaleOf(list, map, centre));
  if (state.frame !== null && frames()) return frameScales(sel, make);
  return make(tables.map((table) => [table.values]));
}

function drawMaps() {
  const sel = selection(), tables = tablesOf(sel).filter((table) => table.rows);
  const scales = scalesOf(sel, tables);
  const unit = unitOf(sel), shared = sel.scale === 'shared' || tables.length < 2;
  $('view-title').textContent = VIEWS[sel.view].title;
  $('view-about').textContent = aboutSelection(sel);
  $('bar').hidden = !shared;
  if (shared) drawBar($('bar'), scales[0] || scaleOf([], 'viridis', null), unit);
  const gaps = tables.some((table) => table.values.some(Number.isNaN)), gray = el('i');
  gray.style.background = css('--none');
  $('legend').replaceChildren(...(shared ? [] : [unit.text + ', a scale for each layer']),
    ...(gaps ? [el('span', {}, gray, 'no value: nothing was chosen, or no fair share')] : []));
  const room = $('panels').clientWidth;
  drawPanels($('panels'), tables.map((table) =>
    ({ ...specOf(sel, table, room), own: !shared, unit: unit.kind })), scales);
}

/* ---- Experts on the image. ---- */

let picture = null;

/* The expert with the largest sum at each position, -1 where there is none. */
function leading(values, run, token) {
  let best = -1, most = 0;
  for (let e = 0; e < run.experts; e++) {
    const value = values[token * run.experts + e];
    if (value > most) [best, most] = [e, value];
  }
  return best;
}

const expertColor = (e) => hex(data.expertColors[e]);

function overlaySpec(sel, table, room) {
  const part = table.parts[0], { run } = part.source, side = run.side;
  const basis = sel.what === 'mass' && part.mass ? part.mass : part.counts;
  const expert = range(run.tokens).map((t) => leading(basis, run, t));
  const at = (i, j) => expert[i * side + j];
  const wide = Math.min(room - 8, 290 * state.zoom);
  const cell = Math.max(2, Math.floor(wide / side));
  return { title: capital(layerName(run, table.layer)), cell: [cell, cell], perRow: 1, tiles: [{
    rows: side, columns: side, image: picture, textRoom: 10, at,
    color: (i, j) => at(i, j) < 0 ? null : expertColor(at(i, j)),
    text: (i, j) => at(i, j) === run.uncondExpert ? 'u' : String(at(i, j)),
    info: (i, j) => at(i, j) < 0 ? [['token', 'nothing was counted']]
      : describe(sel, table, i * side + j, at(i, j)),
  }] };
}

function drawOverlay() {
  const sel = { ...selection(), view: 'token', normalize: 'row' };
  if (overlay) sel.run = 'overlay';
  if (sel.half === 'difference') sel.half = 'cond';
  const run = sourcesOf(sel)[0].run, tables = tablesOf(sel);
  $('view-title').textContent = 'Expert chosen most often at each position';
  $('view-about').textContent = aboutSelection(sel) +
    (picture && !overlay ? ', not of this one alone' : '');
  $('bar').hidden = true;
  $('legend').replaceChildren(...range(run.experts).map((e) => {
    const box = el('i');
    box.style.background = rgb(expertColor(e));
    return el('span', {}, box, 'expert ' + expertName(run, e));
  }));
  const room = $('panels').clientWidth;
  drawPanels($('panels'), tables.map((table) => overlaySpec(sel, table, room)), []);
}
