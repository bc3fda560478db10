// What the page's other libraries give the scripts of the dashboard: only what they use.

/** What the page looks at; device and event are null where there is none. */
interface PageMoment {
  trace: string;
  device: number | null;
  event: number;
}

/** What a callback of the browser gets of its own call. */
interface CallbackContext {
  triggered_id: { row?: number; pin?: string } | null;
  triggered: { value: unknown }[];
}

/** What views keep for the address, by the view's name: fields of the query. */
type KeptFields = Record<string, Record<string, unknown>>;

interface DashClientside {
  no_update: unknown;
  callback_context: CallbackContext;
  set_props(id: string, properties: Record<string, unknown>): void;
  memscope?: object;
}

interface GridApi {
  isDestroyed(): boolean;
  purgeInfiniteCache(): void;
}

interface PlotlyTrace {
  ids: string[];
  parents: string[];
  customdata: (number | null)[];
  meta?: string;
}

/** A graph's element, as plotly leaves it. */
interface PlotlyElement extends HTMLElement {
  data: PlotlyTrace[];
  layout: { meta: { path: (number | null)[]; above?: number | null } };
  memscopeHears?: boolean;
  on?(name: "plotly_icicleclick", does: (event: { points: { id: string }[] }) => boolean): void;
}

interface Window {
  memscopeCanvas: MemscopeCanvas;
  memscopeDrag?: { last: number; timer: number | undefined };
  dash_clientside: DashClientside;
  dash_ag_grid: { getApiAsync(id: string): Promise<GridApi> };
  dashMantineFunctions: Record<string, unknown>;
  Plotly?: { restyle(graph: HTMLElement, update: { opacity: number[] }): void };
  React: { createElement(kind: string, properties: object | null, ...children: unknown[]): object };
}
