/** Start-up: the parts of the page are connected, and the project that was open last is opened. */
import { Refused, get } from "./api.js";
import { connect, fillSelects } from "./controls.js";
import { toast } from "./dialogs.js";
import { $, gather } from "./dom.js";
import { newProject } from "./files.js";
import { translate } from "./i18n.js";
import { listen as listenToKeys } from "./keys.js";
import { Panel } from "./panel.js";
import { Studio } from "./studio.js";

const NARROW = [
  // what the transport has no room for stands with the settings
  ["(min-width: 40rem) and (max-width: 60rem) and (max-height: 32rem)", ".tempo"],
  ["(max-width: 60rem)", ".meter"],
  ["(max-width: 68rem)", ".volume"],
];

/** Tries until there is an answer. */
async function until(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof Refused) toast(error.message, "error");
      await new Promise((after) => setTimeout(after, 1000));
    }
  }
}

/** Opens the project that the address names, or the newest one, or a new one. */
async function openFirst(studio) {
  if (new URLSearchParams(location.search).has("token"))
    history.replaceState(null, "", location.pathname + location.hash);
  const wanted = decodeURIComponent(location.hash.slice(1));
  try {
    if (wanted) return await studio.openProject(wanted);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    toast(error.message, "error");
  }
  const projects = await get("/projects");
  if (projects.length) await studio.openProject(projects[0].id);
  else await newProject(studio);
}

const studio = new Studio();
window.studio = studio; // for scripts and tests
studio.view.setTheme(
  localStorage.getItem("fractalgen.theme") ?? (matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark"),
);
translate();
gather($("narrow"), $("facts"), NARROW);
connect(studio);
listenToKeys(studio);
studio.info = await until(() => get("/info"));
studio.panel = new Panel(studio.info, $("settings"), $("modes"), () => studio.piece);
studio.panel.addEventListener("change", () => studio.refresh());
fillSelects(studio);
await openFirst(studio);
document.body.dataset.ready = "true";
