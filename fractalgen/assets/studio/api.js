/** The server: requests with its one line of error, and a socket that comes back by itself. */

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer to a request; an error of the server is a `Refused`, no answer at all is the `TypeError` of fetch. */
async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  const { detail } = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, detail ?? `${answer.status} ${answer.statusText}`);
}

export async function request(method, path, body) {
  const json = body !== undefined && !(body instanceof FormData);
  const answer = await ask(`/api${path}`, {
    method,
    headers: json ? { "Content-Type": "application/json" } : {},
    body: json ? JSON.stringify(body) : body,
  });
  return answer.json();
}

export const getBlob = async (address) => (await ask(address, { method: "GET" })).blob();
export const get = (path) => request("GET", path);
export const post = (path, body = {}) => request("POST", path, body);
export const put = (path, body) => request("PUT", path, body);

export function upload(path, file) {
  const form = new FormData();
  form.append("file", file);
  return request("POST", path, form);
}

/** Events "message" (with the decoded `detail`), "open" and "lost". */
export class Socket extends EventTarget {
  connect(project) {
    this.close();
    this.wait = 250;
    this.project = project;
    this.#open();
  }

  close() {
    clearTimeout(this.timer);
    this.project = null;
    this.socket?.close();
  }

  #open() {
    const { project } = this;
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = (this.socket = new WebSocket(`${scheme}://${location.host}/api/live?project=${project}`));
    socket.onopen = () => {
      this.wait = 250;
      this.dispatchEvent(new Event("open"));
    };
    socket.onmessage = ({ data }) => this.dispatchEvent(new CustomEvent("message", { detail: JSON.parse(data) }));
    socket.onclose = () => {
      if (this.project !== project || this.socket !== socket) return;
      this.dispatchEvent(new Event("lost"));
      this.wait = Math.min(4000, this.wait * 2);
      this.timer = setTimeout(() => this.#open(), this.wait);
    };
  }
}
