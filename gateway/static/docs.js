// Shows /openapi.json: every operation with its parameters, body, answers and schemas, and a form that tries it.
// Text comes into the page as text only (textContent), never as markup.

/** An element with properties and children. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.startsWith("aria-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const pretty = (value) => JSON.stringify(value, null, 2);
const block = (value) => make("pre", { tabIndex: 0 }, make("code", {}, pretty(value)));
const nameOf = (ref) => ref.split("/").pop();

/** A schema in a few words, with links to the components that it names. */
function words(schema) {
  if (schema.$ref) return [make("a", { href: `#schema-${nameOf(schema.$ref)}` }, nameOf(schema.$ref))];
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return either.flatMap((part, at) => (at ? [" or ", ...words(part)] : words(part)));
  if (schema.type === "array") return ["array of ", ...words(schema.items ?? {})];
  if (schema.type === "object" && schema.additionalProperties?.type) {
    return ["object of ", ...words(schema.additionalProperties)];
  }
  const parts = [schema.enum ? schema.enum.map((value) => JSON.stringify(value)).join(", ") : (schema.type ?? "any")];
  if ("const" in schema) parts.push(JSON.stringify(schema.const));
  if (schema.format) parts.push(`(${schema.format})`);
  if (schema.minimum !== undefined) parts.push(`≥ ${schema.minimum}`);
  if (schema.maximum !== undefined) parts.push(`≤ ${schema.maximum}`);
  if (schema.maxLength !== undefined) parts.push(`at most ${schema.maxLength} characters`);
  if (schema.pattern) parts.push(`like ${schema.pattern}`);
  return [parts.join(" ")];
}

function table(caption, heads, rows) {
  return make("table", {},
    make("caption", { className: "quiet" }, caption),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
    make("tbody", {}, ...rows));
}

function fields(schema) {
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) =>
    make("tr", {},
      make("th", { scope: "row" }, make("code", {}, name), required.has(name) ? make("small", {}, " required") : null),
      make("td", {}, ...words(field)),
      make("td", {}, field.description ?? "")));
  return rows.length ? table("Fields", ["Name", "Type", "Meaning"], rows) : make("p", {}, ...words(schema));
}

function component(name, schema) {
  return make("article", { id: `schema-${name}` },
    make("h3", {}, name),
    make("p", {}, schema.description ?? ""),
    fields(schema),
    make("details", {}, make("summary", {}, "JSON Schema"), block(schema)));
}

/** What an answer looks like, from its schema alone. */
function sample(schema, components, depth = 0) {
  if (depth > 6) return null;
  if ("example" in schema) return schema.example;
  if ("const" in schema) return schema.const;
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.$ref) return sample(components[nameOf(schema.$ref)], components, depth + 1);
  if (schema.anyOf && !schema.properties) return sample(schema.anyOf[0], components, depth + 1);
  if (schema.enum) return schema.enum[0];
  if (schema.properties) {
    const names = schema.required?.length ? schema.required : Object.keys(schema.properties);
    return Object.fromEntries(names.map((name) => [name, sample(schema.properties[name], components, depth + 1)]));
  }
  switch (schema.type) {
    case "array": return [sample(schema.items ?? {}, components, depth + 1)];
    case "object": return {};
    case "boolean": return true;
    case "integer": case "number": return schema.minimum ?? 0;
    case "string":
      if (schema.format === "date-time") return "2027-01-31T09:00:00.000Z";
      if (schema.format === "uuid") return "019a0000-0000-7000-8000-000000000000";
      return "text";
    default: return null;
  }
}

function answers(operation, api) {
  const rows = Object.entries(operation.responses).map(([status, found]) => {
    const answer = found.$ref ? api.components.responses[nameOf(found.$ref)] : found;
    const kinds = Object.entries(answer.content ?? {}).flatMap(([media, { schema }]) =>
      [make("code", {}, media), " ", ...words(schema), make("br")]);
    return make("tr", {},
      make("th", { scope: "row" }, status), make("td", {}, answer.description), make("td", {}, ...kinds));
  });
  return table("Answers", ["Status", "Meaning", "Body"], rows);
}

function parametersOf(operation) {
  return (operation.parameters ?? []).map((parameter) =>
    make("tr", {},
      make("th", { scope: "row" }, make("code", {}, parameter.name),
        make("small", {}, ` ${parameter.in}${parameter.required ? ", required" : ""}`)),
      make("td", {}, ...words(parameter.schema)),
      make("td", {}, parameter.description ?? "")));
}

/** Whether each property is a parameter of its own (style form, exploded): written as lines of name=value. */
const isObject = (parameter) => parameter.schema.type === "object";
const pairsOf = (object) => Object.entries(object ?? {}).map((pair) => pair.join("=")).join("\n");

/** The lines of a form, as the parameters that they stand for. */
function addLines(query, text) {
  for (const line of text.split("\n").map((line) => line.trim()).filter(Boolean)) {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`expected lines of name=value, not ${line}`);
    query.append(line.slice(0, at), line.slice(at + 1));
  }
}

/** The form that tries an operation, and what came back. */
function trial(method, path, operation) {
  const inputs = (operation.parameters ?? []).map((parameter) => {
    const id = `${operation.operationId}-${parameter.name}`;
    const input = isObject(parameter)
      ? make("textarea", { id, spellcheck: false, placeholder: pairsOf(parameter.schema.example) })
      : make("input", { id, required: parameter.required ?? false, autocomplete: "off" });
    return { parameter, input, row: make("p", {}, make("label", { htmlFor: id }, parameter.name), input) };
  });
  const medias = Object.entries(operation.requestBody?.content ?? {});
  const bodyId = `${operation.operationId}-body`;
  const body = medias.length ? make("textarea", { id: bodyId, spellcheck: false }) : null;
  if (body) body.value = medias[0][1].example === undefined ? "" : pretty(medias[0][1].example);
  const output = make("div", { "role": "status", "aria-live": "polite" });
  const form = make("form", {},
    ...inputs.map(({ row }) => row),
    body && make("p", {}, make("label", { htmlFor: bodyId }, `Body (${medias[0][0]})`), body),
    make("button", { type: "submit" }, "Send"),
    output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    output.replaceChildren("Waiting…");
    try {
      output.replaceChildren(...await send(method, path, inputs, body && body.value.trim() ? body.value : null, medias));
    } catch (error) {
      output.replaceChildren(make("p", { className: "bad" }, `No answer: ${error.message}`));
    }
  });
  return make("details", {}, make("summary", {}, "Try it"), form);
}

async function send(method, path, inputs, body, medias) {
  const headers = new Headers();
  const query = new URLSearchParams();
  let target = path;
  for (const { parameter, input } of inputs) {
    const value = input.value.trim();
    if (parameter.in === "path") target = target.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (isObject(parameter)) addLines(query, value);
    else if (value && parameter.in === "query") query.append(parameter.name, value);
    else if (value) headers.set(parameter.name, value);
  }
  const key = document.getElementById("key").value.trim();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  if (body !== null) headers.set("Content-Type", medias[0][0]);
  const url = query.size ? `${target}?${query}` : target;
  const response = await fetch(url, { method, headers, body, credentials: "omit", redirect: "error" });
  const text = await response.text();
  let shown = text;
  if ((response.headers.get("Content-Type") ?? "").includes("json")) {
    try { shown = pretty(JSON.parse(text)); } catch { /* shown as it came */ }
  }
  return [
    make("p", { className: response.ok ? "" : "bad" }, `${response.status} ${response.statusText}`),
    make("pre", { tabIndex: 0 }, make("code", {}, shown)),
  ];
}

function operationOf(method, path, operation, api) {
  const scope = operation.security.flatMap((way) => way.key ?? []).join(", ");
  const rows = parametersOf(operation);
  const parts = [
    make("h3", {}, make("span", { className: "method" }, method), make("code", { className: "path" }, path)),
    make("p", {}, operation.summary),
    operation.description ? make("p", {}, operation.description) : null,
    make("p", { className: "quiet" }, scope ? `Needs a key with the scope ${scope}.` : "Open to everyone."),
    rows.length ? table("Parameters", ["Name", "Type", "Meaning"], rows) : null,
  ];
  for (const [media, { schema, example }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(make("p", {}, "Body: ", make("code", {}, media), " ", ...words(schema)));
    if (example !== undefined) parts.push(block(example));
  }
  parts.push(answers(operation, api));
  const first = Object.values(operation.responses).find((answer) => answer.content?.["application/json"]);
  if (first) {
    const shown = sample(first.content["application/json"].schema, api.components.schemas);
    parts.push(make("details", {}, make("summary", {}, "Example of an answer"), block(shown)));
  }
  const endless = operation.responses["101"] || operation.responses["200"]?.content?.["text/event-stream"];
  if (!endless) parts.push(trial(method, path, operation));
  return make("article", { id: operation.operationId }, ...parts.filter((part) => part !== null));
}

function show(api) {
  document.getElementById("title").textContent = `${api.info.title} API v${api.info.version}`;
  document.getElementById("words").textContent = api.info.description;
  const main = document.getElementById("operations");
  const index = document.getElementById("index");
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [name, operation] of Object.entries(item)) {
      const method = name.toUpperCase();
      index.append(make("li", {}, make("a", { href: `#${operation.operationId}` }, operation.summary)));
      main.append(operationOf(method, path, operation, api));
    }
  }
  document.getElementById("schemas").append(
    ...Object.entries(api.components.schemas).map(([name, schema]) => component(name, schema)));
  document.getElementById("state").remove();
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

try {
  const response = await fetch("/openapi.json", { credentials: "omit" });
  if (!response.ok) throw new Error(`the service answered ${response.status}`);
  show(await response.json());
} catch (error) {
  const state = document.getElementById("state");
  state.className = "bad";
  state.textContent = `The document can't be shown: ${error.message}`;
}
