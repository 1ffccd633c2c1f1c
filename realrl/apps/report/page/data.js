// The report's data, and how its numbers are unpacked.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;

const ARRAYS = { f32: Float32Array, f64: Float64Array, i32: Int32Array };

/** Numbers of a packed array; see packing.py. */
function unpack(packed) {
  const [type, text] = Object.entries(packed)[0];
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return new ARRAYS[type](bytes.buffer);
}

/** A function's results by argument, each computed when it is first asked for. */
function memoised(compute) {
  const known = new Map();
  return (key) => {
    if (!known.has(key)) known.set(key, compute(key));
    return known.get(key);
  };
}

/** A curve of a run: `{steps, values}`, or null where the run has none of this name. */
function curve(run, kind, name) {
  const columns = run.curves[kind];
  if (!columns || !columns.series[name]) return null;
  columns.unpacked ??= {};
  columns.unpackedSteps ??= unpack(columns.steps);
  columns.unpacked[name] ??= unpack(columns.series[name]);
  return { steps: columns.unpackedSteps, values: columns.unpacked[name] };
}

/** The last number of a curve, or null. */
function lastOf(line) {
  if (!line) return null;
  for (let i = line.values.length - 1; i >= 0; i--) if (!Number.isNaN(line.values[i])) return line.values[i];
  return null;
}

/** The first number of a curve, or null. */
function firstOf(line) {
  if (!line) return null;
  const found = line.values.find((value) => !Number.isNaN(value));
  return found === undefined ? null : found;
}

/** Every metric of any run: its name, and the kinds of rows that have it. */
function metricNames() {
  const names = new Map();
  for (const run of RUNS) {
    for (const [kind, columns] of Object.entries(run.curves)) {
      for (const name of Object.keys(columns.series)) {
        if (!names.has(name)) names.set(name, new Set());
        names.get(name).add(kind);
      }
    }
  }
  return names;
}
