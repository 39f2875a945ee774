/** Elements in few words. */
export const $ = (id) => document.getElementById(id);

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "data") Object.assign(element.dataset, value);
    else if (name in element && name !== "list") element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null && child !== false));
  return element;
}

export function icon(name, kind = "") {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("aria-hidden", "true");
  if (kind) svg.setAttribute("class", kind);
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Keeps elements in `box` while their media query holds, and before `home` otherwise: `[[query, selector]]`. */
export function gather(box, home, rules) {
  const media = rules.map(([query]) => matchMedia(query));
  const place = () =>
    rules.forEach(([, selector], i) => {
      const element = document.querySelector(selector);
      if (media[i].matches) box.append(element);
      else home.before(element);
    });
  for (const one of media) one.addEventListener("change", place);
  place();
}

export const setIcon = (button, name) => button.querySelector("use").setAttribute("href", `#i-${name}`);
export const press = (button, on) => button.setAttribute("aria-pressed", on);
