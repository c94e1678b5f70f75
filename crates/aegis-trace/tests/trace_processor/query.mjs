// Asks Perfetto's own trace_processor about a trace.
//
//   node query.mjs trace_processor.wasm TRACE < QUERIES
//
// QUERIES is a JSON array of SQL texts. The answer on standard output is a JSON array with one array
// of rows for each; a row is an object. Whole numbers beyond 2^53 come as text. Whatever fails ends
// the program with status 1 and the reason on standard error.
//
// The module is WebAssembly for a browser, so this stands in for the browser: a clock, memory that
// grows, and nothing else of a system. Requests and answers are protocol buffers, as
// `trace_processor.proto` of Perfetto defines them.
import { readFileSync } from "node:fs";

// ---- Protocol buffers, as far as this needs them.

/** The bytes of `value` as a varint. */
function varint(value) {
  const bytes = [];
  for (let rest = BigInt(value); ; rest >>= 7n) {
    if (rest < 0x80n) return [...bytes, Number(rest)];
    bytes.push(Number(rest & 0x7fn) | 0x80);
  }
}

const number = (field, value) => Buffer.from([...varint(field * 8), ...varint(value)]);
const bytes = (field, value) =>
  Buffer.concat([Buffer.from([...varint(field * 8 + 2), ...varint(value.length)]), value]);

/** Reads values one after the other. */
class Cursor {
  constructor(buffer) {
    this.buffer = buffer;
    this.at = 0;
  }

  get isAtEnd() {
    return this.at >= this.buffer.length;
  }

  varint() {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = this.buffer[this.at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
  }

  take(length) {
    this.at += length;
    return this.buffer.subarray(this.at - length, this.at);
  }
}

/** Every field of a message, by its number: a list of its values. */
function fieldsOf(buffer) {
  const fields = {};
  const cursor = new Cursor(buffer);
  while (!cursor.isAtEnd) {
    const tag = Number(cursor.varint());
    const read = {
      0: () => cursor.varint(),
      1: () => cursor.take(8),
      2: () => cursor.take(Number(cursor.varint())),
      5: () => cursor.take(4),
    }[tag % 8];
    (fields[Math.floor(tag / 8)] ??= []).push(read());
  }
  return fields;
}

// ---- The module and what stands in for its browser.

class TraceProcessor {
  static ROOM = 4 << 20;

  constructor(path) {
    this.said = "";
    const module = new WebAssembly.Module(readFileSync(path));
    const imports = {};
    for (const { module: from, name } of WebAssembly.Module.imports(module)) {
      (imports[from] ??= {})[name] = this[`on_${name}`]?.bind(this) ?? (() => TraceProcessor.ABSENT);
    }
    this.exports = new WebAssembly.Instance(module, imports).exports;
    const { __indirect_function_table: table } = this.exports;
    const answered = table.grow(1);
    table.set(answered, asExport((from, length) => this.answers.push(this.copy(from, length))));
    this.exports.emscripten_stack_init?.();
    this.exports.__wasm_call_ctors();
    this.room = this.exports.trace_processor_rpc_init(answered, TraceProcessor.ROOM) >>> 0;
    this.sequence = 0;
  }

  /** What a system call answers here: there is none. */
  static ABSENT = -52;

  get view() {
    return new DataView(this.exports.memory.buffer);
  }

  copy(from, length) {
    return Buffer.from(new Uint8Array(this.exports.memory.buffer, from >>> 0, length >>> 0));
  }

  on_emscripten_get_now() {
    return performance.now();
  }

  on_emscripten_date_now() {
    return Date.now();
  }

  on_emscripten_get_heap_max() {
    return 0xffff0000;
  }

  on_emscripten_resize_heap(wanted) {
    const { memory } = this.exports;
    const pages = Math.ceil(((wanted >>> 0) - memory.buffer.byteLength) / 65536);
    try {
      memory.grow(Math.max(pages, 128));
      return 1;
    } catch {
      return 0;
    }
  }

  on_clock_time_get(_clock, _precision, to) {
    this.view.setBigUint64(to >>> 0, process.hrtime.bigint(), true);
    return 0;
  }

  on_environ_sizes_get(count, size) {
    this.view.setUint32(count >>> 0, 0, true);
    this.view.setUint32(size >>> 0, 0, true);
    return 0;
  }

  on_environ_get() {
    return 0;
  }

  on_fd_close() {
    return 0;
  }

  /** Words to a person are kept for the case of a failure. */
  on_fd_write(_to, vectors, count, written) {
    let total = 0;
    for (let index = 0; index < count; index++) {
      const from = this.view.getUint32((vectors >>> 0) + 8 * index, true);
      const length = this.view.getUint32((vectors >>> 0) + 8 * index + 4, true);
      this.said += this.copy(from, length).toString();
      total += length;
    }
    this.view.setUint32(written >>> 0, total, true);
    return 0;
  }

  on__abort_js() {
    throw new Error(`it gave up: ${this.said}`);
  }

  /** Sends one request and gives its answers, each as fields. */
  call(method, argument) {
    const body = [number(1, this.sequence++), number(2, method), argument ?? Buffer.alloc(0)];
    const request = bytes(1, Buffer.concat(body));
    this.answers = [];
    for (let from = 0; from < request.length; from += TraceProcessor.ROOM) {
      const part = request.subarray(from, from + TraceProcessor.ROOM);
      new Uint8Array(this.exports.memory.buffer).set(part, this.room);
      this.exports.trace_processor_on_rpc_request(part.length);
    }
    const messages = fieldsOf(Buffer.concat(this.answers))[1] ?? [];
    return messages.map((message) => {
      const fields = fieldsOf(message);
      if (fields[5]) throw new Error(`it failed: ${fields[5][0]}`);
      return fields;
    });
  }

  load(path) {
    const trace = readFileSync(path);
    for (let from = 0; from < trace.length; from += 1 << 20) {
      const part = bytes(101, trace.subarray(from, from + (1 << 20)));
      for (const { 201: result } of this.call(1, part)) refuse(result, 2);
    }
    for (const { 212: result } of this.call(2)) refuse(result, 1);
  }

  query(sql) {
    const columns = [];
    const cells = [];
    for (const { 203: result } of this.call(3, bytes(103, bytes(1, Buffer.from(sql))))) {
      if (!result) continue;
      const { 1: names = [], 2: [error] = [], 3: batches = [] } = fieldsOf(result[0]);
      if (error?.length) throw new Error(`${error}\nin: ${sql}`);
      columns.push(...names.map(String));
      batches.forEach((batch) => cells.push(...cellsOf(fieldsOf(batch))));
    }
    const rows = [];
    for (let from = 0; from < cells.length; from += columns.length) {
      rows.push(Object.fromEntries(columns.map((name, index) => [name, cells[from + index]])));
    }
    return rows;
  }
}

/** Wraps a function of two numbers so that it can stand in a table of the module. */
function asExport(call) {
  // One type, of two 32-bit numbers and no result; `f` imported from `e` and exported as `f`.
  const header = [0, 97, 115, 109, 1, 0, 0, 0];
  const type = [1, 6, 1, 0x60, 2, 0x7f, 0x7f, 0];
  const imported = [2, 7, 1, 1, 101, 1, 102, 0, 0];
  const exported = [7, 5, 1, 1, 102, 0, 0];
  const module = new WebAssembly.Module(
    Uint8Array.from([...header, ...type, ...imported, ...exported]),
  );
  return new WebAssembly.Instance(module, { e: { f: call } }).exports.f;
}

/** Throws if a result has an error in `field`. */
function refuse(result, field) {
  const error = result && fieldsOf(result[0])[field]?.[0];
  if (error?.length) throw new Error(`the trace is refused: ${error}`);
}

/** The cells of a batch: their kinds come first, then the values of each kind. */
function cellsOf({ 1: kinds = [], 2: whole = [], 3: real = [], 5: texts = [] }) {
  const wholes = new Cursor(Buffer.concat(whole));
  const reals = new Cursor(Buffer.concat(real));
  const strings = texts.length ? texts[0].toString().split("\0") : [];
  const cells = [];
  const cursor = new Cursor(Buffer.concat(kinds));
  while (!cursor.isAtEnd) {
    const kind = Number(cursor.varint());
    if (kind === 1) cells.push(null);
    else if (kind === 2) cells.push(readable(BigInt.asIntN(64, wholes.varint())));
    else if (kind === 3) cells.push(reals.take(8).readDoubleLE());
    else if (kind === 4) cells.push(strings.shift());
    else throw new Error(`a cell of kind ${kind}`);
  }
  return cells;
}

const readable = (value) => (Number.isSafeInteger(Number(value)) ? Number(value) : String(value));

const [module, trace] = process.argv.slice(2);
try {
  const processor = new TraceProcessor(module);
  processor.load(trace);
  const queries = JSON.parse(readFileSync(0, "utf8"));
  console.log(JSON.stringify(queries.map((sql) => processor.query(sql))));
} catch (error) {
  console.error(String(error.message ?? error));
  process.exit(1);
}
