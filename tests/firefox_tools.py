"""A second engine: stock Firefox, driven by the standard that it speaks itself (WebDriver BiDi)."""

import json
import os
import re
import shutil
import subprocess
import threading
from contextlib import contextmanager

FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
#: No proxy, no name but this machine's, no visit to Mozilla.
PREFERENCES = {
    "network.proxy.type": 1, "network.proxy.socks": "127.0.0.1", "network.proxy.socks_port": 9,
    "network.proxy.socks_remote_dns": True,
    "network.proxy.no_proxies_on": "127.0.0.1, classroom.test",
    "network.dns.localDomains": "classroom.test",  # this machine, by a name that is not secure
    "app.normandy.enabled": False, "toolkit.telemetry.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False, "browser.shell.checkDefaultBrowser": False,
    "network.captive-portal-service.enabled": False, "network.connectivity-service.enabled": False,
    "browser.safebrowsing.downloads.remote.enabled": False, "extensions.update.enabled": False,
}


#: Keys that are no signs, as WebDriver names them.
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Control": "\ue009", "Escape": "\ue00c"}


class Page:
    """One tab. `faults` collects exceptions and errors of the console."""

    def __init__(self, socket):
        self.socket, self.last, self.faults = socket, 0, []
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded"])
        self.context = self.send("browsingContext.create", type="tab")["context"]

    def send(self, method, **params):
        self.last += 1
        self.socket.send(json.dumps({"id": self.last, "method": method, "params": params}))
        while True:
            said = json.loads(self.socket.recv())
            if said.get("method") == "log.entryAdded" and said["params"]["level"] == "error":
                self.faults.append(said["params"]["text"])
            if said.get("id") == self.last:
                if said["type"] == "error":
                    raise RuntimeError(f"{method}: {said['message']}")
                return said["result"]

    def goto(self, address):
        self.send("browsingContext.navigate", context=self.context, url=address, wait="complete")

    def resize(self, width, height):
        self.send("browsingContext.setViewport", context=self.context,
                  viewport={"width": width, "height": height})

    def before_scripts(self, statements):
        """What is to run in each page from now on, before its own first script; how to end that."""
        script = self.send("script.addPreloadScript",
                           functionDeclaration=f"() => {{ {statements} }}")
        return lambda: self.send("script.removePreloadScript", **script)

    def type(self, text, held=()):
        """Press the keys of a text, one after the other, while others are held; see KEYS."""
        def each(kind, keys):
            return [{"type": kind, "value": key} for key in keys]

        presses = [one for key in text for one in (*each("keyDown", key), *each("keyUp", key))]
        self.send("input.performActions", context=self.context, actions=[
            {"type": "key", "id": "keys",
             "actions": [*each("keyDown", held), *presses, *each("keyUp", held)]}])

    def choose_file(self, query, path):
        """Give a file to the input that a CSS query finds."""
        found = self.send("script.evaluate", awaitPromise=False, target={"context": self.context},
                          expression=f"document.querySelector({json.dumps(query)})")
        self.send("input.setFiles", context=self.context, files=[str(path)],
                  element={"sharedId": found["result"]["sharedId"]})

    def evaluate(self, function, *values):
        """The value of a JavaScript function (a promise is awaited), by way of JSON."""
        given = ", ".join(json.dumps(value) for value in values)
        answer = self.send(
            "script.evaluate", awaitPromise=True, target={"context": self.context},
            expression=f"Promise.resolve(({function})({given})).then((v) => JSON.stringify(v))")
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        return json.loads(answer["result"].get("value") or "null")

    def wait_for(self, function, seconds):
        """Until the function is true; RuntimeError if it isn't in time."""
        self.evaluate("""async () => {
            const end = Date.now() + %d;
            while (!(%s)()) {
                if (Date.now() > end) throw new Error("waited %d s in vain");
                await new Promise((go) => setTimeout(go, 100));
            }
        }""" % (1000 * seconds, function, seconds))


@contextmanager
def firefox(profile):
    """A page in a new Firefox; its profile is made in the folder `profile`, downloads go there."""
    from websocket import create_connection

    downloads = {"browser.download.folderList": 2, "browser.download.dir": str(profile)}
    (profile / "user.js").write_text("".join(
        f"user_pref({json.dumps(key)}, {json.dumps(value)});\n"
        for key, value in (PREFERENCES | downloads).items()))
    process = subprocess.Popen(
        [FIREFOX, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", profile],
        stderr=subprocess.PIPE, text=True, env=os.environ | {"HOME": str(profile)})
    try:
        said = next((match for line in process.stderr
                     if (match := re.search(r"listening on (ws://\S+)", line))), None)
        if said is None:
            raise RuntimeError("Firefox ended before it listened")
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or its pipe fills up
        socket = create_connection(f"{said[1]}/session", timeout=600, suppress_origin=True)
        yield Page(socket)
        socket.close()
    finally:
        process.terminate()
        process.wait(20)
