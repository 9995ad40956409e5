'use strict';
/* What the self-check looks at. Listening starts before anything can fail. */
const complaints = [];
window.addEventListener('error', (event) => complaints.push(event.message));
window.addEventListener('unhandledrejection', (event) => complaints.push(String(event.reason)));
console.error = ((print) => (...words) => {
  complaints.push(words.join(' '));
  print.apply(console, words);
})(console.error);

/* ---- Small helpers. Texts of files only ever become text nodes. ---- */

const $ = (id) => document.getElementById(id);
const NAMESPACE = 'http' + '://www.w3.org/2000/svg'; /* an identifier, never fetched */

function build(node, properties, children) {
  for (const [name, value] of Object.entries(properties || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
const el = (name, properties, ...children) =>
  build(document.createElement(name), properties, children);
const svg = (name, properties, ...children) =>
  build(document.createElementNS(NAMESPACE, name), properties, children);

/* Control characters and what turns the direction of text around become visible. */
const clean = (text) =>
  String(text).replace(/[\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/g, '\ufffd');
const range = (n, from = 0) => Array.from({ length: n }, (_, i) => from + i);
const clamp = (value, low, high) => Math.max(low, Math.min(high, value));
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function format(value, kind) {
  if (value === null || !Number.isFinite(value)) return 'none';
  if (kind === 'weight') return value.toExponential(1);
  if (kind === 'share') return (100 * value).toFixed(Math.abs(value) < 0.0995 ? 2 : 1) + ' %';
  if (kind === 'choices') return Math.round(value).toLocaleString('en');
  const size = Math.abs(value);
  if (size >= 1e4) return Math.round(value).toLocaleString('en');
  return value.toFixed(size >= 100 ? 1 : size >= 10 ? 2 : 3);
}

function ticks(low, high, most) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / most));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => span / s <= most);
  const first = Math.ceil(low / step - 1e-9), out = [];
  for (let i = first; i * step <= high + step * 1e-9; i++) out.push(i * step);
  return out.map((value) => Math.abs(value) < step * 1e-9 ? 0 : value);
}

/* ---- Tables: base64 of deflated planes of bytes, the lowest bytes first. ---- */

async function inflate(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function integers(packed, length, Type = Float64Array) {
  const bytes = await inflate(packed.z), out = new Type(length);
  if (bytes.length !== packed.planes * length) throw new Error('a table has the wrong size');
  for (let plane = 0, scale = 1; plane < packed.planes; plane++, scale *= 256)
    for (let i = 0; i < length; i++) out[i] += scale * bytes[plane * length + i];
  return out;
}

/* A table [outer, steps, inner] is stored as differences from the step before, modulo 2^32 with
 * the sign in the lowest bit: routing hardly changes from step to step, so these are small. */
function undoDifferences(values, steps, inner) {
  for (let i = 0; i < values.length; i++) {
    const difference = (values[i] >>> 1) ^ -(values[i] & 1);
    const before = Math.floor(i / inner) % steps ? values[i - inner] : 0;
    values[i] = (before + difference) >>> 0;
  }
}

async function unpackCounts(packed, length, steps, inner) {
  const out = await integers(packed, length, steps ? Uint32Array : Float64Array);
  if (steps) undoDifferences(out, steps, inner);
  for (let i = 0; i < length; i++) out[i] *= packed.unit;
  return out;
}

/* Mass is stored as the mean weight of a cell's choices, in steps between its extremes. */
async function unpackMass(packed, counts, steps, inner) {
  if (!packed) return null;
  const means = await integers(packed, counts.length, Uint32Array);
  const out = new Float64Array(counts.length);
  if (steps) undoDifferences(means, steps, inner);
  for (let i = 0; i < out.length; i++) out[i] = counts[i] * (packed.low + packed.step * means[i]);
  return out;
}

async function unpackHalf(run, half) {
  const inner = run.tokens * run.experts, steps = run.binStep.length - 1;
  const cells = run.layers.length * steps * inner;
  half.unit = half.counts.unit;
  half.weightStep = Math.max(...[half.mass, half.classMass].map((table) => table ? table.step : 0));
  half.counts = await unpackCounts(half.counts, cells, steps, inner);
  half.mass = await unpackMass(half.mass, half.counts, steps, inner);
  if (!half.classCounts) return;
  const classes = run.layers.length * run.labels.length * run.experts;
  half.classCounts = await unpackCounts(half.classCounts, classes, 0, 0);
  half.classMass = await unpackMass(half.classMass, half.classCounts, 0, 0);
}

/* ---- What is looked at. ---- */

let data, first, overlay, names;
const state = {
  tab: 'maps', view: 'token', run: 'first', half: 'cond', what: 'counts', normalize: 'uniform',
  scale: 'shared', colormap: 'viridis', layers: [0, 0], bins: [0, 0], frame: null,
  playing: false, speed: 6, zoom: 1, opacity: 0.45,
};
const RANGES = { layers: 'layer', bins: 'step' };
const VIEWS = {
  class: { title: 'Experts by class', rows: 'class', columns: 'expert' },
  token: { title: 'Experts by position', rows: 'token', columns: 'expert' },
  step: { title: 'Experts by step', rows: 'step', columns: 'expert' },
  layer: { title: 'Experts by layer', rows: 'layer', columns: 'expert' },
  expert: { title: 'Experts over the steps', rows: 'expert', columns: 'step' },
};
const HALVES = {
  cond: { text: 'conditional half', of: [0] },
  uncond: { text: 'unconditional half', of: [1] },
  both: { text: 'both halves', of: [0, 1] },
  difference: { text: 'conditional minus unconditional half', of: null },
};
const UNITS = {
  uniform: { text: 'ratio to uniform (1 = fair share)', kind: 'ratio', centre: 1 },
  row: { text: 'share of the row', kind: 'share' },
  layer: { text: "share of the layer's largest", kind: 'share' },
  none: { text: '', kind: 'choices' },
};

const runOf = (name) => data.runs[name === 'second' ? 1 : 0];
const bins = (run) => run.binStep.length - 1;

/* The experts of a layer that its router chooses from. */
const routed = (run, layer) =>
  range(run.layerExperts[layer]).filter((e) => e !== run.uncondExpert);

/* What a selection shows: one source, or two of which the second is subtracted. */
function sourcesOf(sel) {
  if (sel.run === 'difference')
    return [{ name: 'first run', run: data.runs[0], halves: HALVES[sel.half].of },
            { name: 'second run', run: data.runs[1], halves: HALVES[sel.half].of }];
  const run = sel.run === 'overlay' ? overlay : runOf(sel.run);
  if (sel.half === 'difference')
    return [{ name: 'conditional', run, halves: [0] }, { name: 'unconditional', run, halves: [1] }];
  return [{ name: '', run, halves: HALVES[sel.half].of }];
}

const subtracts = (sel) => sel.run === 'difference' || sel.half === 'difference';

/* ---- Sums over what a view leaves out. ---- */

const shapeOf = (run, view, [b0, b1]) =>
  view === 'class' ? [run.labels.length, run.experts]
    : view === 'token' ? [run.tokens, run.experts]
      : view === 'step' ? [b1 - b0 + 1, run.experts]
        : view === 'expert' ? [run.experts, b1 - b0 + 1] : [1, run.experts];

/* Adds table [layer, b0..b1, T, E] to out, whose shape is that of the view. */
function reduceSteps(out, table, run, layer, [b0, b1], view) {
  const T = run.tokens, E = run.experts, n = b1 - b0 + 1;
  for (let b = b0; b <= b1; b++) {
    let from = (layer * bins(run) + b) * T * E;
    for (let t = 0; t < T; t++) {
      const row = view === 'token' ? t : view === 'step' ? b - b0 : 0;
      if (view === 'expert') for (let e = 0; e < E; e++) out[e * n + b - b0] += table[from++];
      else for (let e = 0; e < E; e++) out[row * E + e] += table[from++];
    }
  }
}

function sum(source, what, layer, range01, view) {
  const { run, halves } = source, [rows, columns] = shapeOf(run, view, range01);
  const out = new Float64Array(rows * columns);
  for (const half of halves) {
    const tables = run.halves[half];
    if (view !== 'class') {
      reduceSteps(out, tables[what], run, layer, range01, view);
      continue;
    }
    const table = what === 'mass' ? tables.classMass : tables.classCounts;
    for (let i = 0; i < out.length; i++) out[i] += table[layer * out.length + i];
  }
  return out;
}

/* Values as ratios to a fair share, shares or as they are; NaN where nothing was chosen. In the
 * view of experts over the steps, the experts of a step are a column; its rows are their steps. */
function normalise(values, source, layer, sel, rows, columns) {
  const { run } = source, list = routed(run, layer), here = run.layerExperts[layer];
  const byColumn = sel.view === 'expert', out = new Float64Array(values.length).fill(NaN);
  const [groups, stride, step] = byColumn ? [columns, 1, columns] : [rows, columns, 1];
  const largest = values.reduce((a, b) => Math.max(a, b), 0);
  const total = (from, by, indices) => indices.reduce((all, i) => all + values[from + i * by], 0);
  for (let g = 0; g < groups; g++) {
    const from = g * stride, all = total(from, step, range(here));
    const fair = total(from, step, list) / list.length;
    for (let e = 0; e < here; e++) {
      const at = from + e * step;
      const whole = {
        uniform: () => e === run.uncondExpert ? 0 : fair,
        row: () => byColumn ? total(e * columns, 1, range(columns)) : all,
        layer: () => all > 0 ? largest : 0,
        none: () => all > 0 ? 1 : 0,
      }[sel.normalize]();
      if (whole > 0) out[at] = values[at] / whole;
    }
  }
  return out;
}

/* Table of one layer: sums of each source, and the values that are drawn. */
function tableOf(sel, layer) {
  const sources = sourcesOf(sel);
  const [rows, columns] = shapeOf(sources[0].run, sel.view, sel.bins);
  const parts = sources.map((source) => {
    const counts = sum(source, 'counts', layer, sel.bins, sel.view);
    const mass = source.run.mass ? sum(source, 'mass', layer, sel.bins, sel.view) : null;
    const basis = sel.what === 'mass' ? mass : counts;
    return { name: source.name, source, counts, mass,
             values: normalise(basis, source, layer, sel, rows, columns) };
  });
  const values = parts[0].values.slice();
  if (parts[1]) for (let i = 0; i < values.length; i++) values[i] -= parts[1].values[i];
  return { layer, rows, columns, parts, values };
}

/* The layers of a selection, or for the view of layers one table that has them as rows. */
function tablesOf(sel) {
  const tables = range(sel.layers[1] - sel.layers[0] + 1, sel.layers[0])
    .map((layer) => tableOf(sel, layer));
  if (sel.view !== 'layer') return tables;
  const join = (pick) => Float64Array.from(tables.flatMap((table) => Array.from(pick(table))));
  const parts = tables[0].parts.map((part, p) => ({
    ...part, counts: join((t) => t.parts[p].counts), values: join((t) => t.parts[p].values),
    mass: part.mass && join((t) => t.parts[p].mass),
  }));
  return [{ layer: null, first: sel.layers[0], rows: tables.length, columns: tables[0].columns,
            parts, values: join((t) => t.values) }];
}
