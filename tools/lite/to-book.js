/* A notebook's link to a Markdown page of the book would open here as text to edit: go to the built page. */
{
  const path = new URLSearchParams(location.search).get("path") ?? "";
  if (/^book\/[\w\/-]+\.md$/.test(path)) location.replace(`../../${path.replace(/md$/, "html")}${location.hash}`);
}
