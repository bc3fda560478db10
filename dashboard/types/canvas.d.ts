// The structures that the canvas is made of, and the parts that one script gives another. Checked by `make types`;
// the browser never sees this file.

type Column = Uint8Array | Uint16Array | Uint32Array;
type Columns = Record<string, Column>;
type ColumnKind = "u1" | "u2" | "u4";

/** An answer of the server: see memscope_dashboard/canvas/packed.py. */
interface Unpacked<Header> {
  header: Header & { columns: Record<string, { kind: ColumnKind; begin: number; length: number }> };
  columns: Columns;
}

interface AllocationsHeader {
  low: number;
  high: number;
  n_left_out: number;
  categories: string[];
  owners: string[];
  modules: string[];
  sites: string[];
  streams: string[];
}

/** The allocations of a range of moments, a column each; positions in them are `j` and ids of rectangles. */
interface Allocations extends AllocationsHeader {
  n: number;
  row: Column;
  start: Column;
  end: Column;
  size: Float64Array;
  addressLow: Column;
  addressHigh: Column;
  owner: Column;
  site: Column;
  stream: Column;
  category: Column;
  sample: Column;
  leftOut: Float64Array;
  leftOutCount: Column;
  last: Int32Array;
  active: Float64Array;
}

interface SeriesHeader {
  low: number;
  high: number;
  is_exact: boolean;
}

interface Series extends SeriesHeader {
  begin: Column;
  reserved: Float64Array;
}

/** Label, first moment, the moment after the last, depth. */
type Span = [string, number, number, number];

/** What `/canvas/run` says. */
interface Run {
  n_events: number;
  first_event: number;
  n_allocations: number;
  peak: number;
  active_peak_bytes: number;
  reserved_peak_bytes: number | null;
  total_bytes: number | null;
  ooms: [number, number][];
  steps: Span[];
  phases: Span[];
}

interface SegmentGroup {
  name: string;
  is_private: boolean;
  is_large: boolean;
  row_bytes: number | null;
}

interface SegmentsHeader {
  groups: SegmentGroup[];
  handle_bytes: number;
  is_known: boolean;
}

/** A device's segments before its first event, and what changes them. */
interface Segments extends SegmentsHeader {
  base: bigint;
  startAddress: Float64Array;
  startSize: Float64Array;
  startKey: Column;
  moment: Column;
  takes: Column;
  address: Float64Array;
  size: Float64Array;
  key: Column;
  group: Column;
  isExpandable: Column;
}

/** A segment at a moment; `at`, `width` and `row` are where its group's tape has it. */
interface Segment {
  begin: number;
  end: number;
  key: number;
  group: number;
  at: number;
  width: number;
  row: number;
}

/** A block (`id` its position) or a hole (`id` −1, `hole` its kind's place in the list of holes). */
interface Piece {
  begin: number;
  size: number;
  id: number;
  hole: number;
  segment: Segment;
}

interface Heading {
  name: string;
  row: number;
  rows: number;
  width: number;
  n: number;
  bytes: number;
}

interface AddressSpace {
  segments: Segment[];
  pieces: Piece[];
  nStray: number;
  rows: number;
  headings: Heading[];
}

type SpaceNow = AddressSpace & { moment: number; of: Allocations };
type Hole = "free_releasable" | "free_pinned" | "free_private_pools";

/** Moments from x0 to x1, bytes from y0 to y1. */
interface EventsView {
  x0: number;
  x1: number;
  y0: number;
  y1: number;
}

/** Shares of a row from u0 to u1, rows from v0 to v1. */
interface AddressView {
  u0: number;
  u1: number;
  v0: number;
  v1: number;
}

interface Plot {
  left: number;
  right: number;
  top: number;
  bottom: number;
}

interface Point {
  x: number;
  y: number;
}

/** Rectangles as a surface takes them. */
interface RectangleColumns {
  n: number;
  place: Float32Array;
  id: Int32Array;
  count: Int32Array;
  bytes: Float64Array;
  bottom: Float64Array;
  column: Int32Array;
  ends: Uint8Array;
  add(column: number, left: number, right: number, low: number, high: number, id: number, count: number, bytes: number, bottom: number, ends: number): number;
}

interface Stacked {
  rectangles: RectangleColumns;
  /** Of the pinned allocation, four each: left, right, its bottom and its top. */
  outline: number[];
  moments: Int32Array;
  lefts: Float32Array;
}

interface PlacedAddresses {
  rectangles: RectangleColumns;
  holes: number[];
  outline: [number, number, number, number][];
  ties: [[number, number], [number, number]][];
  keptBytes: number;
}

interface Surface {
  name: string;
  draw(rectangles: RectangleColumns, colours: Uint32Array, width: number, height: number, ratio: number, wide: number): void;
}

type Colouring = "category" | "module" | "site" | "identity" | "size" | "age" | "stream";
type Projection = "time" | "address";
type RangeGrouping = "category" | "module" | "line";
type ColourOf = (j: number) => number;

/** Names with their colours, or the ends of a scale with its stops. */
type Legend = { names: { name: string; colour: string }[] } | { ends: [string, string]; colours: string[] };

interface Furniture {
  view: EventsView;
  run: Run;
  plot: Plot;
  width: number;
  height: number;
  style: CSSStyleDeclaration;
  series: Series;
  moment: number;
  range: [number, number] | null;
  outline: number[];
  toX(moment: number): number;
  toY(bytes: number): number;
}

interface AddressFurniture {
  view: AddressView;
  plot: Plot;
  width: number;
  height: number;
  style: CSSStyleDeclaration;
  space: AddressSpace;
  outline: PlacedAddresses["outline"];
  ties: PlacedAddresses["ties"];
}

interface Subject {
  trace: string;
  device: number;
}

interface Pin extends Subject {
  row: number;
}

/** What is known of the trace that is open. */
interface Opened {
  run: Run;
  whole: Allocations;
  detail: Allocations | null;
  series: Series;
  view: EventsView;
}

/** What was drawn last; columns only where events are the axis. */
interface Drawn {
  coarse: number;
  n: number;
  places: RectangleColumns;
  colours: Uint32Array;
  columns: { moments: Int32Array; lefts: Float32Array } | null;
}

/** What lies at a place: a position of an allocation or −1; a piece where addresses are seen; else what is in use. */
interface Hit {
  id: number;
  moment: number;
  piece: Piece | null;
  total: number;
}

type AddressFields = Record<string, string | number>;

interface InstrumentFields {
  root: HTMLElement;
  generation: number;
  opened: Opened | null;
  openedKey: string | null;
  subject: Subject | null;
  scheme: string | null;
  moment: number;
  pin: Pin | null;
  range: [number, number] | null;
  groupRangeBy: RangeGrouping;
  colour: Colouring;
  find: string;
  nFound: number | null;
  paint: { of: Allocations; scheme: string | null; colours: Uint32Array } | null;
  projection: Projection;
  /** Undefined while they are asked for. */
  addresses: Segments | null | undefined;
  space: SpaceNow | null;
  heldAddressView: AddressView | null;
  momentData: Allocations | null;
  keptBytes: number;
  limits: string;
  frameMs: number;
  thin: number;
  drawn: Drawn | null;
  isMoving: boolean;
  waiting: number | null;
  resting: number;
  playing: number | null;
  telling: number;
  toldAt: number;
  projectionButtons: HTMLButtonElement[];
  colourSelect: HTMLSelectElement;
  searchInput: HTMLInputElement;
  foundWords: HTMLElement;
  playButton: HTMLButtonElement;
  /** What of the address cannot be shown. */
  problem: HTMLElement;
  legend: HTMLElement;
  stage: HTMLElement;
  picture: HTMLCanvasElement;
  furniture: HTMLCanvasElement;
  tip: HTMLElement;
  note: HTMLElement;
  foot: HTMLElement;
  surface: Surface;
  pen: CanvasRenderingContext2D;
}

interface Opening {
  open(subject: Subject): Promise<void>;
  answer(what: string, fields: AddressFields): Promise<Response>;
  ask(what: string, fields: AddressFields): Promise<ArrayBuffer>;
  /** What is known; an error where nothing is open. */
  readonly known: Opened;
  readonly run: Run;
  readonly whole: Allocations;
  readonly data: Allocations;
  refine(): Promise<void>;
}

interface AddressBar {
  restore(isFirst: boolean): void;
  fields(): AddressFields;
  writeAddress(): void;
}

interface Choices {
  eventOf(moment: number): number;
  setMoment(moment: number, tells: boolean): void;
  heardMoment(event: number, isChosen: boolean): void;
  goTo(moment: number): void;
  setPin(row: number | null): void;
  heardPin(pin: Pin | null): void;
  setRange(range: [number, number] | null): void;
  setColour(by: Colouring): void;
  setFind(text: string): void;
  showFound(): void;
  showLife(j: number): void;
}

interface Addresses {
  setProjection(name: Projection): Promise<void>;
  readonly addressView: AddressView;
  showAddresses(view: AddressView): void;
  zoomAddresses(factor: number, x: number, y: number, isFlat?: boolean): void;
  toAddress(x: number, y: number): { u: number; v: number };
  readonly addressData: Allocations | null;
  askForMoment(): Promise<void>;
  spaceNow(): SpaceNow | null;
  drawAddresses(wide: number, high: number, width: number, height: number, ratio: number, plot: Plot): { rectangles: RectangleColumns; colours: Uint32Array };
  pressedOverAddresses(key: string): boolean;
}

interface ViewOverEvents {
  view: EventsView;
  plot(): Plot;
  plotWidth(): number;
  fitted(): EventsView;
  kept(view: EventsView): EventsView;
  show(view: EventsView): void;
  fit(): void;
  fitBytes(): void;
  zoomX(factor: number, at: number): void;
  zoomY(factor: number, at: number): void;
  move(dx: number, dy: number): void;
  reveal(moment: number): void;
  toX(moment: number): number;
  toY(bytes: number): number;
  toMoment(x: number): number;
  toBytes(y: number): number;
}

interface Hover {
  under(at: Point): Hit | null;
  hover(at: Point): void;
  /** The allocations of which positions in a hit are. */
  readonly shownData: Allocations;
  choose(at: Point): void;
}

interface Words {
  say(): void;
  sayRange(): void;
  help(): void;
  sayLegend(legend: Legend | null): void;
}

interface Drawing {
  redraw(isMoving?: boolean): void;
  rest(): void;
  painted(data: Allocations): Uint32Array;
  draw(): void;
}

interface Playing {
  play(): void;
}

interface Saving {
  save(url: string, ending: string): void;
  savePng(): void;
  saveSvg(): void;
}

/** A button of the pointer that is down: where, on what, and how far it has gone since. */
interface Held extends Point {
  kind: "move" | "scrub" | "range";
  moved: number;
  view: EventsView;
  addressView: AddressView;
}

interface Input {
  listen(): void;
  /** Whether the key is one of the canvas. */
  pressed(event: KeyboardEvent): boolean;
}

interface InstrumentParts {
  opening: Opening;
  addressBar: AddressBar;
  choices: Choices;
  addresses: Addresses;
  viewOverEvents: ViewOverEvents;
  hover: Hover;
  words: Words;
  drawing: Drawing;
  playing: Playing;
  saving: Saving;
  input: Input;
}

interface Instrument
  extends InstrumentFields, Opening, AddressBar, Choices, Addresses, ViewOverEvents, Hover, Words, Drawing, Playing, Saving, Input {}

interface ShownState {
  projection: Projection;
  address_range: AddressView | null;
  kept_bytes: number | null;
  x_range: [number, number];
  y_range: [number, number];
  n_rectangles: number;
  n_allocations: number;
  n_left_out: number;
  colour: Colouring;
  pin: number | null;
  event: number;
  range: [number, number] | null;
  n_found: number | null;
  surface: string;
  frame_ms: number;
}

/** Bytes of the address space by kind. */
type HeldBytes = Record<Hole | "blocks" | "segments" | "n_segments" | "n_stray", number>;

/** What the scripts of the canvas give each other, and the page. */
interface MemscopeCanvas {
  parts: InstrumentParts;
  unpack<Header>(buffer: ArrayBuffer): Unpacked<Header>;
  whole(columns: Columns, name: string): Float64Array;
  allocationsOf(buffer: ArrayBuffer): Allocations;
  seriesOf(buffer: ArrayBuffer): Series;
  segmentsOf(buffer: ArrayBuffer): Segments;
  firstAbove(column: ArrayLike<number>, limit: number): number;
  addressText(data: Allocations, j: number): string;
  bytes(n: number): string;
  count(n: number): string;
  Rectangles: new () => RectangleColumns;
  stack(data: Allocations, view: EventsView, width: number, height: number, pinned: number): Stacked;
  pick(data: Allocations, moment: number, bytes: number): { id: number; bottom: number; total: number };
  COLOURS: Record<Colouring, string>;
  isColouring(name: string): name is Colouring;
  usualColour(data: Allocations): Colouring;
  legendOf(data: Allocations, by: Colouring, style: CSSStyleDeclaration, isDark: boolean): Legend | null;
  colourOf(data: Allocations, by: Colouring, style: CSSStyleDeclaration, isDark: boolean): ColourOf;
  surfaceOf(element: HTMLCanvasElement, wants2d: boolean): Surface;
  penOf(element: HTMLCanvasElement): CanvasRenderingContext2D;
  packedColour(rgb: number, alpha: number): number;
  notUnderstood(text: string): string | null;
  search(data: Allocations, text: string): Uint8Array | null;
  sumRange(data: Allocations, from: number, to: number, keyOf: (j: number) => string): { key: string; mean: number }[];
  rangesAt(segments: Segments, moment: number): [number, number, number][];
  addressSpace(data: Allocations, segments: Segments, moment: number): AddressSpace;
  placeAddresses(space: AddressSpace, view: AddressView, width: number, height: number, pinned: number): PlacedAddresses;
  pickAddress(space: AddressSpace, u: number, v: number): Piece | null;
  HOLES: Hole[];
  HOLE_WORDS: Record<Hole, string>;
  MARGIN: Plot;
  strips(run: Run): number;
  stripsHeight(run: Run): number;
  furnish(pen: CanvasRenderingContext2D, s: Furniture): void;
  furnishAddresses(pen: CanvasRenderingContext2D, s: AddressFurniture): void;
  fittedView(run: Run): EventsView;
  errorText(error: unknown): string;
  element<Tag extends keyof HTMLElementTagNameMap>(tag: Tag, className?: string | null, parent?: HTMLElement | null, text?: string): HTMLElementTagNameMap[Tag];
  button(parent: HTMLElement, text: string, title: string, does: () => void): HTMLButtonElement;
  isOf(moment: { trace: string; device: number | null }): boolean;
  fields(): AddressFields;
  state(): ShownState | null;
  placeOf(row: number, moment: number): Point | null;
  addressState(): HeldBytes | null;
  addressAt(moment: number): HeldBytes | null;
  follow(subject: Subject | null, scheme: string | null, moment: (Subject & { event: number }) | null, pin: Pin | null): void;
}
