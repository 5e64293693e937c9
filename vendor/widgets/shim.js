// Tell RequireJS that anywidget's front end lies beside this file, wherever the book is opened from
// (a web server, a folder, a USB stick): nothing is ever asked of a content delivery network.
require.config({
  paths: { anywidget: new URL("anywidget", document.currentScript.src).href },
});
