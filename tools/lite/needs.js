/* Before all else on JupyterLite's pages: a browser that cannot run them gets a sentence and a way back
   instead of a sign that turns for ever. Old browsers must be able to read this file: no newer syntax. */

(function () {
  const lacks = [["Web Workers", typeof Worker], ["WebAssembly", typeof WebAssembly]]
    .filter((one) => one[1] === "undefined").map((one) => one[0]);
  try {
    new Function("let a = {}; a.b ??= a?.c; class D { #e = 1; }");
  } catch (error) {
    lacks.push("the JavaScript of today");
  }
  if (!lacks.length) return;
  window.stop();  // nothing that stands below is read: the app would start, and cover this
  const title = "This browser cannot run the notebook", root = document.documentElement;
  root.lang = "en";
  root.innerHTML = `<head><meta charset="utf-8"><title>${title}</title>
      <meta name="viewport" content="width=device-width, initial-scale=1"></head>
    <body><main id="lacks" style="font: 1.05rem/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 36rem;
        padding: 0 1rem"><h1>${title}</h1>
      <p>It lacks ${lacks.join(" and ")}, which Python needs here. Some browsers have it and are set to refuse it.
        A current Firefox or Chromium has it.</p>
      <p>The book needs none of it to be read: each of its pages shows the code with its results.</p>
      <p><a href="../../index.html">Back to the book</a></p></main></body>`;
})();
