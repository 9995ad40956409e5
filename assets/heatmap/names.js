/* ---- Names of rows and columns. ---- */

const layerName = (run, layer) => 'layer ' + run.layers[layer];
const className = (label) => label === first.nullLabel ? 'no class'
  : names.has(label) ? label + ' ' + names.get(label) : 'class ' + label;
const expertName = (run, e) => e === run.uncondExpert ? 'uncond' : String(e);

function stepsName(run, b0, b1) {
  const from = run.binStep[b0], to = run.binStep[b1 + 1] - 1;
  if (from === 0 && to === run.steps - 1) return 'all ' + run.steps + ' steps';
  return from === to ? 'step ' + from + ' of ' + run.steps
    : 'steps ' + from + '\u2013' + to + ' of ' + run.steps;
}
const timeOf = (run, b) => 'time ' + format(run.time[run.binStep[b]], 'ratio');

function layersName(run, [l0, l1]) {
  return l0 === l1 ? 'layer ' + run.layers[l0]
    : 'layers ' + run.layers[l0] + '\u2013' + run.layers[l1];
}

function rowLabel(sel, table, i) {
  const { run } = table.parts[0].source;
  if (sel.view === 'class') return className(run.labels[i]);
  if (sel.view === 'step') return String(run.binStep[sel.bins[0] + i]);
  if (sel.view === 'layer') return String(run.layers[table.first + i]);
  return sel.view === 'expert' ? expertName(run, i) : String(i);
}
const columnLabel = (sel, table, j) => {
  const { run } = table.parts[0].source;
  return sel.view === 'expert' ? String(run.binStep[sel.bins[0] + j]) : expertName(run, j);
};

/* What the tooltip says about a cell of a table: pairs of name and text. */
function describe(sel, table, i, j) {
  const { run } = table.parts[0].source, [b0, b1] = sel.bins, byColumn = sel.view === 'expert';
  const bin = sel.view === 'step' ? b0 + i : byColumn ? b0 + j : null;
  const layer = table.layer === null ? table.first + i : table.layer;
  const out = [['layer', String(run.layers[layer])]];
  if (sel.view === 'class') out.push(['class', className(run.labels[i])], ['steps', 'all']);
  else if (bin !== null) out.push(['step', stepsName(run, bin, bin) + ', ' + timeOf(run, bin)]);
  else out.push(['steps', stepsName(run, b0, b1)]);
  if (sel.view === 'token')
    out.push(['token', i + ': row ' + Math.floor(i / run.side) + ', column ' + i % run.side]);
  out.push(['expert', expertName(run, byColumn ? i : j)]);
  for (const part of table.parts) out.push(...describePart(sel, table, part, i, j));
  if (table.parts[1])
    out.push(['difference', format(table.values[i * table.columns + j], unitOf(sel).kind)]);
  return out;
}

function describePart(sel, table, part, i, j) {
  const k = i * table.columns + j, { run } = part.source, out = [];
  const title = (text) => part.name ? part.name + ': ' + text : text;
  const layer = table.layer === null ? table.first + i : table.layer;
  const basis = sel.what === 'mass' ? part.mass : part.counts;
  const group = (normalize) => sel.view === 'layer'
    ? normalise(basis.slice(i * table.columns, (i + 1) * table.columns), part.source, layer,
                { ...sel, normalize }, 1, table.columns)[j]
    : normalise(basis, part.source, layer, { ...sel, normalize }, table.rows, table.columns)[k];
  const unit = run.halves[part.source.halves[0]].unit;
  out.push([title('choices'), format(part.counts[k], 'choices') +
    (unit > 1 && sel.view !== 'class' ? ' (to ' + unit + ')' : '')]);
  if (part.mass) {
    out.push([title('gate mass'), format(part.mass[k], 'ratio')]);
    out.push([title('mean weight'), format(part.mass[k] / part.counts[k], 'ratio')]);
  }
  out.push([title(sel.view === 'expert' ? 'share of the step' : 'share'),
            format(group('row'), 'share')]);
  out.push([title('ratio to uniform'), format(group('uniform'), 'ratio')]);
  return out;
}

/* ---- Colours. ---- */

const hex = (text) => range(3).map((i) => parseInt(text.substr(2 * i, 2), 16));
const rgb = (color) => 'rgb(' + color.join(',') + ')';
const lookups = new Map();

/* 256 colours of a map, between the anchors that came with the data. */
function lookup(name) {
  if (!lookups.has(name)) {
    const anchors = data.colormaps[name].map(hex), last = anchors.length - 1;
    lookups.set(name, range(256).map((i) => {
      const at = i / 255 * last, a = anchors[Math.floor(at)], b = anchors[Math.ceil(at)];
      return a.map((v, c) => Math.round(v + (b[c] - v) * (at - Math.floor(at))));
    }));
  }
  return lookups.get(name);
}

/* Whether black can be read better on a color than white. */
const light = ([r, g, b]) =>
  0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2 > 0.2;

/* A scale over the finite ones of many values. centre: lies in the middle of the map. */
function scaleOf(lists, map, centre) {
  let low = Infinity, high = -Infinity;
  for (const list of lists)
    for (const value of list)
      if (Number.isFinite(value)) {
        if (value < low) low = value;
        if (value > high) high = value;
      }
  if (low > high) low = high = 0;
  if (low === high) low -= 1e-9, high += 1e-9;
  if (centre === null) return { low, high, from: low, span: high - low, colors: lookup(map) };
  const reach = Math.max(high - centre, centre - low);
  return { low: low >= 0 && centre ? Math.max(0, centre - reach) : centre - reach,
           high: centre + reach, from: centre - reach, span: 2 * reach, colors: lookup(map) };
}

const colorAt = (scale, value) => Number.isFinite(value)
  ? scale.colors[clamp(Math.round(255 * (value - scale.from) / scale.span), 0, 255)] : null;

/* The map of a selection and the value in its middle. */
function mapOf(sel) {
  if (subtracts(sel)) return ['difference', 0];
  const centre = UNITS[sel.normalize].centre;
  if (sel.colormap !== 'difference') return [sel.colormap, null];
  return centre === undefined ? ['viridis', null] : ['difference', centre];
}

function unitOf(sel) {
  const unit = UNITS[sel.normalize], mass = sel.what === 'mass';
  const text = unit.text || (mass ? 'gate mass' : 'choices');
  return { kind: sel.normalize === 'none' && mass ? 'mass' : unit.kind,
           text: subtracts(sel) ? 'difference: ' + text : text };
}
