/** Messages, the list of states, the list of projects, the help sheet, the menu of the selection. */
import { $, el, icon, press } from "./dom.js";
import { get, request } from "./api.js";
import { bare, current, locale, said, stateName, t } from "./i18n.js";

export function toast(text, kind = "info") {
  const message = el(
    "div",
    { className: `toast ${kind}` },
    el("span", { textContent: said(text) }),
    el("button", { "aria-label": t("close"), onclick: () => message.remove() }, icon("close")),
  );
  $("toasts").append(message);
  while ($("toasts").children.length > 4) $("toasts").firstChild.remove();
  setTimeout(() => message.remove(), kind === "error" ? 15000 : 6000);
  return message;
}

/** Tells those who do not see the page. */
export const say = (text) => ($("live").textContent = text);

// ---- history ----

export function showHistory(studio) {
  const { project } = studio,
    list = $("states"),
    open = !$("history-panel").hidden;
  press($("history"), open);
  $("history").setAttribute("aria-expanded", open);
  const key = [project.id, project.states.size, project.head, current()].join();
  if (!open || list.dataset.key === key) return;
  list.dataset.key = key;
  const states = [...project.states.values()].toSorted((one, other) => other.time - one.time || other.id - one.id);
  const time = new Intl.DateTimeFormat(locale(), { hour: "2-digit", minute: "2-digit" });
  const before = new Set();
  for (let at = project.head; at != null; at = project.states.get(at)?.parent) before.add(at);
  list.replaceChildren(
    ...states.map(({ id, label, kind, time: when, group }) =>
      el(
        "li",
        {},
        el(
          "button",
          {
            className: `state ${kind} ${before.has(id) ? "" : "branch"}`,
            "aria-current": id === project.head,
            data: { state: id },
            onclick: () => studio.go(id),
          },
          icon({ edit: "draw", new: "file", import: "file", alternative: "abc" }[kind] ?? "spark"),
          el("span", { textContent: kind === "new" ? t("state.new") : stateName(label) }),
          el("small", {
            textContent: `${group != null ? `#${id} · ` : ""}${time.format(when * 1000)}`,
          }),
        ),
      ),
    ),
  );
  list.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
}

// ---- projects ----

export async function showProjects(studio) {
  $("projects-dialog").showModal();
  $("folder").textContent = t("projects.folder", { folder: studio.info.folder });
  await listProjects(studio);
}

/** Fills the list of projects with what the server has. */
export async function listProjects(studio) {
  try {
    const projects = await get("/projects");
    $("project-list").replaceChildren(...projects.map((project) => projectRow(studio, project)));
  } catch (error) {
    toast(error.message, "error");
  }
}

function projectRow(studio, { id, name, modified, bars, notes }) {
  const when = new Intl.DateTimeFormat(locale(), { dateStyle: "medium", timeStyle: "short" });
  const gone = (error) => {
    toast(error.message, "error");
    return listProjects(studio);
  };
  const remove = async () => {
    if (!confirm(t("projects.delete.sure", { name }))) return;
    await request("DELETE", `/projects/${id}`).then(() => listProjects(studio), gone);
  };
  const facts = [t("bars.count", { n: bars }), t("notes.count", { n: notes }), when.format(modified * 1000)];
  const label = t("projects.delete", { name });
  return el(
    "li",
    {},
    el(
      "button",
      {
        className: "project",
        "aria-current": id === studio.project.id,
        onclick: () => studio.openProject(id).then(() => $("projects-dialog").close(), gone),
      },
      el("b", { textContent: name }),
      el("small", { textContent: facts.join(" · ") }),
    ),
    id !== studio.project.id && el("button", { "aria-label": label, title: label, onclick: remove }, icon("close")),
  );
}

// ---- help ----

const SHORTCUTS = [
  [
    "help.listen",
    ["space", "play"],
    ["home", "start"],
    ["L", "loop"],
    ["M", "metronome"],
    ["P", "sustain"],
    [", .", "help.bar"],
    ["click", "help.seek"],
  ],
  [
    "help.compose",
    ["ctrl+enter", "help.go"],
    ["esc", "help.stop"],
    ["R", "region.compose"],
    ["A", "region.three"],
    ["V", "region.vary"],
    ["C", "mode.continue"],
    ["W", "watch"],
  ],
  [
    "help.edit",
    ["1 2 3", "help.tools"],
    ["ctrl+Z", "undo"],
    ["ctrl+Y", "redo"],
    ["ctrl+C X V", "help.clipboard"],
    ["ctrl+D", "edit.duplicate"],
    ["del", "edit.delete"],
    ["ctrl+A", "edit.all"],
    ["Q", "edit.quantise"],
    ["K", "edit.lock"],
  ],
  [
    "help.notes",
    ["← →", "help.time"],
    ["↑ ↓", "help.pitch"],
    ["shift+↑ ↓", "help.octave"],
    ["shift+← →", "help.length"],
    ["alt+↑ ↓", "help.velocity"],
    ["N", "help.next"],
    ["enter", "help.add"],
  ],
  [
    "help.view",
    ["+ -", "help.zoom"],
    ["ctrl+wheel", "help.wheel"],
    ["0", "zoom.fit"],
    ["H", "history"],
    ["T", "theme"],
    ["?", "help"],
  ],
];

export function showHelp() {
  const key = (text) => el("kbd", { textContent: text.replace("ctrl", /Mac/.test(navigator.platform) ? "⌘" : "ctrl") });
  $("shortcuts").replaceChildren(
    ...SHORTCUTS.map(([title, ...rows]) =>
      el(
        "section",
        {},
        el("h3", { textContent: t(title) }),
        el(
          "dl",
          {},
          ...rows.map(([keys, what]) =>
            el(
              "div",
              {},
              el("dt", {}, ...keys.split(" ").map(key)),
              el("dd", { textContent: what.startsWith("help.") ? t(what) : bare(t(what)) }),
            ),
          ),
        ),
      ),
    ),
  );
  $("help-dialog").showModal();
}

// ---- menu of the selection ----

/** Entries: `[key of the text, action, shortcut, enabled]`; null is a line. */
export function openMenu(entries, x, y) {
  const menu = $("edit-menu");
  menu.replaceChildren(
    ...entries.map((entry) => {
      if (!entry) return el("hr");
      const [text, run, keys = "", enabled = true] = entry;
      return el(
        "button",
        { role: "menuitem", disabled: !enabled, data: { action: text }, onclick: () => (menu.hidePopover(), run()) },
        el("span", { textContent: bare(t(text)) }),
        el("kbd", { textContent: keys }),
      );
    }),
  );
  menu.showPopover();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(x, innerWidth - width - 8))}px`;
  menu.style.top = `${Math.max(8, Math.min(y, innerHeight - height - 8))}px`;
  menu.querySelector("button:enabled")?.focus();
}

/** Arrow keys move through a menu. */
export function menuKeys(event) {
  const items = [...event.currentTarget.querySelectorAll("button:enabled, a")],
    at = items.indexOf(document.activeElement);
  const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (by) items[(at + by + items.length) % items.length]?.focus();
  else if (event.key === "Home" || event.key === "End") items.at(event.key === "Home" ? 0 : -1)?.focus();
  else return;
  event.preventDefault();
  event.stopPropagation();
}
