
/* Behind JupyterLite's service worker (build.py sets POLICY, that of its pages): a worker that starts
   from a file comes under no page's policy, but under that of its file's answer. So do the kernels of
   Firefox, which early.js leaves files; here each gets the policy, and may start workers of its own
   only from this folder, where they get it too. That it came through here is its first line: else no
   kernel's script runs from its file. */
const fromFile = ({ destination }) => /worker$/.test(destination);

async function underPolicy(request, answer) {
  const found = await answer;
  if (!fromFile(request)) return found;
  const headers = new Headers(found.headers), { status, statusText } = found;
  headers.set("Content-Security-Policy",
    POLICY.replace("worker-src 'self'", `worker-src ${registration.scope}`));
  headers.delete("Content-Length");
  return new Response(`self.POLICED = true;\n${await found.text()}`, { headers, status, statusText });
}

// Asked by early.js, when a page was loaded past this.
self.addEventListener("message", (event) => event.waitUntil(self.clients.claim()));
