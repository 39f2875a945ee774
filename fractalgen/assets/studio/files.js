/** Files that come and go: projects, pieces that are read, and the piece in each format. */
import { getBlob, post, upload } from "./api.js";
import { toast } from "./dialogs.js";
import { barRange } from "./document.js";
import { $, el, icon } from "./dom.js";
import { locale, t } from "./i18n.js";

const DOWNLOADS = ["mid", "musicxml", "wav", "mp4", "gif", "html", "project"];

export async function newProject(studio) {
  const day = new Intl.DateTimeFormat(locale(), {
    month: "short",
    day: "numeric",
    hour: "2-digit",
    minute: "2-digit",
  });
  const name = t("projects.untitled", { day: day.format().replaceAll(":", ".") });
  await studio.openProject((await post("/projects", { name })).id);
}

// ---- in ----

/** Opens a project's file, or reads a piece into the project. */
export async function take(studio, file) {
  if (!file) return;
  const { project } = studio;
  try {
    if (/\.fractalgen$/i.test(file.name)) return await studio.openProject((await upload("/projects/open", file)).id);
    await project.saved();
    const { state, remarks } = await upload(`/projects/${project.id}/import`, file);
    await project.refresh();
    if (state?.id !== undefined && project.head !== state.id) await project.go(state.id);
    studio.roll.fit();
    toast(t("imported", { name: file.name }));
    for (const line of remarks ?? []) toast(line);
  } catch (error) {
    studio.complain(error);
  }
}

/** Files that are dropped anywhere on the page. */
export function acceptDrops(studio) {
  let inside = 0;
  const files = ({ dataTransfer }) => dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => files(event) && ($("drop").hidden = !++inside));
  document.addEventListener("dragleave", (event) => files(event) && ($("drop").hidden = !--inside));
  document.addEventListener("dragover", (event) => files(event) && event.preventDefault());
  document.addEventListener("drop", async (event) => {
    if (!files(event)) return;
    event.preventDefault();
    inside = 0;
    $("drop").hidden = true;
    for (const file of event.dataTransfer.files) await take(studio, file);
  });
}

// ---- out ----

const safe = (name) => name.replace(/[^\p{L}\p{N} ._-]+/gu, "_").trim() || "piece";

/** The state whose piece is taken away: an alternative that is looked at, or the head. */
const stateOf = ({ project, strip }) => strip.shown ?? project.head;
const pieceOf = (studio) => studio.project.pieces.get(stateOf(studio));

/** Address and name of a file of the piece, or of its bars in a region. */
export function fileOf(studio, kind, region = null) {
  const { project } = studio;
  if (kind === "project") return { href: `/api/projects/${project.id}/file`, name: `${safe(project.name)}.fractalgen` };
  const range = region && barRange(pieceOf(studio), region),
    state = project.number(stateOf(studio));
  const href = `/api/projects/${project.id}/states/${state}/${kind}${range ? `?bars=${range}` : ""}`;
  return { href, name: `${safe(project.name)}${range ? ` bars ${range}` : ""}.${kind}` };
}

export async function download(studio, kind, region = null) {
  let waiting = null;
  try {
    if (!studio.project.online || studio.view.lost) throw new Error(t("take.lost"));
    if (!pieceOf(studio).length && kind !== "project") throw new Error(t("nothing"));
    await studio.project.saved();
    const { href, name } = fileOf(studio, kind, region);
    if (!["mid", "project"].includes(kind)) waiting = toast(t("take.wait", { name }));
    const link = el("a", { href: URL.createObjectURL(await getBlob(href)), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    toast(t("taken", { name }));
  } catch (error) {
    studio.complain(error);
  } finally {
    waiting?.remove();
  }
}

/** A link to the piece, or to its bars in `region()`, as MIDI can be dragged into another program. */
export function draggable(studio, link, region) {
  // the server must know the piece before it is dropped
  link.addEventListener("pointerenter", () => studio.project.saved());
  link.addEventListener("dragstart", ({ dataTransfer }) => {
    const { href, name } = fileOf(studio, "mid", region()),
      address = new URL(href, location).href;
    dataTransfer.setData("DownloadURL", `audio/midi:${name}:${address}`);
    dataTransfer.setData("text/uri-list", address);
    dataTransfer.effectAllowed = "copy";
  });
}

export function fillTakeMenu(studio) {
  const { region } = studio,
    menu = $("take-menu");
  const link = (kind, part = null) => {
    const { href, name } = fileOf(studio, kind, part),
      drags = kind === "mid";
    const entry = el(
      "a",
      {
        href,
        download: name,
        id: `take-${kind}${part ? "-region" : ""}`,
        draggable: drags,
        className: drags ? "drags" : "",
        onclick: async (event) => {
          event.preventDefault();
          menu.hidePopover();
          await download(studio, kind, part);
        },
      },
      icon(drags ? "drag" : "file"),
      el("span", { textContent: t(`take.${kind}`) }),
      el("small", { textContent: part ? t("bars", { n: barRange(pieceOf(studio), part) }) : t(`take.${kind}.help`) }),
    );
    if (drags) draggable(studio, entry, () => part);
    return entry;
  };
  menu.replaceChildren(
    ...(region ? [link("mid", region), el("hr")] : []),
    ...DOWNLOADS.map((kind) => link(kind)),
    el("p", { className: "soft", textContent: t("take.drag") }),
  );
}
