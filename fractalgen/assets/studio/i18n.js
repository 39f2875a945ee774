/** Texts in the reader's language; an element says by `data-t` or `data-label` which one it shows. */
import en from "./en.js";
import zh from "./zh-TW.js";
import zhServer from "./zh-TW.server.js";

const LANGUAGES = { en, "zh-TW": zh };
let language = localStorage.getItem("fractalgen.language") ?? (/^zh/i.test(navigator.language) ? "zh-TW" : "en");

export const current = () => language;

/** How times are written: as the reader's own locale does, where it is of the page's language. */
export const locale = () => (navigator.language.slice(0, 2) === language.slice(0, 2) ? navigator.language : language);

/** The text of a key, with `{name}` replaced; English where a translation has none. */
export function t(key, values = {}) {
  let text = LANGUAGES[language][key] ?? en[key] ?? key;
  if (Array.isArray(text)) text = text[values.n === 1 ? 0 : 1]; // one, more
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** A key as musicians write it. */
export const keyName = (key) =>
  key
    ?.replace(/^([A-G])b/, "$1♭")
    .replace(/^([A-G])#/, "$1♯")
    .replace(/ (major|minor)$/, (_, kind) => ` ${t(`choice.${kind}`)}`);

/** The labels that this page gives to states, in all languages. */
const DID = Object.values(LANGUAGES)
  .flatMap((texts) => Object.entries(texts).filter(([key]) => key.startsWith("did.")))
  .flatMap(([key, text]) => [text].flat().map((form) => [key, pattern(form)]));

function pattern(text) {
  const parts = { n: "[\\d.,]+", flag: "\\w+", rest: ".*" };
  const plain = text.replace(/[.*+?^$()|[\]\\]/g, "\\$&");
  return new RegExp(`^${plain.replace(/\{(\w+)\}/g, (_, name) => `(?<${name}>${parts[name] ?? ".+?"})`)}$`);
}

/** The label of a state in the reader's language, whatever language the page had then; the server's are English. */
export function stateName(label) {
  for (const [key, made] of DID) {
    const found = made.exec(label);
    if (found) return t(key, { ...found.groups, n: Number(found.groups?.n) });
  }
  const [, verb, bars, rest] =
    /^(new piece|continue|compose|accompany|vary|import)(?: bars? ([\d-]+))?( .*)?$/.exec(label) ?? [];
  if (!verb) return label;
  return (
    t(`label.${verb}`, { bars: bars ? t("label.bars", { bars }) : "" }) +
    (rest ?? "").replace("(stopped)", t("label.stopped"))
  );
}

export const has = (key) => key in en;

/** What a flag is called. */
export const flagName = (name) => (has(`flag.${name}`) ? t(`flag.${name}`) : name.replaceAll("_", " "));

const SAID = { en: [], "zh-TW": zhServer.map(([english, text]) => [pattern(english), text]) };

/** What the server says, in the reader's language as far as there are words for it. */
export function said(line) {
  for (const [english, text] of SAID[language]) {
    const found = english.exec(line);
    if (!found) continue;
    const part = (_, name) => (name === "flag" ? flagName(found.groups.flag) : said(found.groups[name]));
    return text.replace(/\{(\w+)\}/g, part);
  }
  return line;
}

export function toggle() {
  language = language === "en" ? "zh-TW" : "en";
  localStorage.setItem("fractalgen.language", language);
  translate();
}

export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = bare(t(element.dataset.t));
  for (const element of document.querySelectorAll("[data-role]"))
    element.setAttribute("aria-roledescription", t(element.dataset.role));
  for (const element of document.querySelectorAll("[data-label]")) label(element, t(element.dataset.label));
}

/** A text without the shortcut that stands in brackets at its end. */
export const bare = (text) => text.replace(/ \([^)]*\)$/, "");

/** The accessible name is the text before a shortcut in brackets; the whole is shown by the mouse. */
export function label(element, text) {
  element.setAttribute("aria-label", bare(text));
  if (/^(BUTTON|A|SELECT|INPUT)$/.test(element.tagName)) element.title = text;
}
