"""The page's style sheet: no fonts, images or scripts from anywhere."""

CSS = """
:root {
  color-scheme: light dark;
  --page: #fdfdfb; --ink: #23272e; --soft: #626972; --rule: #dddcd6; --band: #f5f4ef;
  --accent: #0c5f8f;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  --serif: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #16181c; --ink: #e4e4e0; --soft: #a0a6ae; --rule: #363a41; --band: #1e2126;
    --accent: #7cc0ea;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 17px/1.6 var(--serif); overflow-wrap: anywhere;
}
main { max-width: 1180px; margin: 0 auto; padding: 3.5rem 1.5rem 6rem; }
header { border-bottom: 1px solid var(--rule); padding-bottom: 1.4rem; margin-bottom: 2rem; }
h1 { font-size: 2.1rem; line-height: 1.2; margin: 0 0 .5rem; font-weight: 600;
     letter-spacing: -.01em; }
header p { margin: 0; color: var(--soft); }
h2 { font-size: 1.4rem; line-height: 1.3; margin: 3.4rem 0 .8rem; font-weight: 600;
     scroll-margin-top: 1rem; }
h3 { font-size: 1.12rem; margin: 2.4rem 0 .6rem; font-weight: 600; }
p, dl, ul { max-width: 46rem; margin: 0 0 1rem; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .15em; }
code { font: .84em var(--mono); background: var(--band); padding: .1em .3em; border-radius: 3px; }
nav { font: 14px/1.9 var(--sans); margin-bottom: 2.2rem; }
nav a { margin-right: 1.1rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
dl { display: grid; grid-template-columns: 13rem 1fr; gap: .45rem 1.2rem; font-size: .92em; }
dl { max-width: 56rem; }
dt { font: 600 13.5px/1.75 var(--sans); } dd { margin: 0; }
.frame { position: relative; overflow-x: auto; margin: 1.2rem 0 .6rem; }
table { border-collapse: collapse; width: 100%; font: 13.5px/1.4 var(--sans);
        font-variant-numeric: tabular-nums; }
caption { text-align: left; font: 600 14px/1.5 var(--sans); padding: 0 0 .55rem; }
th, td { padding: .5rem .65rem; vertical-align: top; border-bottom: 1px solid var(--rule);
         overflow-wrap: break-word; }
thead th { font-weight: 600; color: var(--soft); font-size: 12px; line-height: 1.35;
           vertical-align: bottom; border-bottom: 1px solid var(--ink); }
tbody th { font-weight: 600; text-align: left; white-space: nowrap; }
.numbers td, .numbers thead th { text-align: right; }
.numbers thead th:first-child { text-align: left; }
.texts th, .texts td, .facts th, .facts td { text-align: left; overflow-wrap: anywhere; }
.texts tbody th, .facts tbody th { white-space: nowrap; overflow-wrap: normal; }
tbody tr:hover { background: var(--band); }
small { display: block; color: var(--soft); font-size: 11.5px; font-weight: 400; }
.numbers td small { white-space: nowrap; }
.notes { font: 13px/1.55 var(--sans); color: var(--soft); padding-left: 1.1rem; max-width: 60rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr));
           gap: 1.8rem 2.4rem; margin: 1.4rem 0; }
figure { margin: 0; max-width: 560px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font: 13px/1.5 var(--sans); color: var(--soft); margin-top: .5rem; }
details { margin: 1.2rem 0; border-top: 1px solid var(--rule); }
summary { font: 600 14px/1.5 var(--sans); padding: .7rem 0; cursor: pointer;
          color: var(--accent); }
@media (max-width: 720px) {
  body { font-size: 16px; }
  main { padding: 2rem 1rem 4rem; }
  h1 { font-size: 1.6rem; }
  dl { grid-template-columns: 1fr; gap: .1rem; } dd { margin-bottom: .7rem; }
  .numbers { width: auto; min-width: 100%; }
  .numbers th, .numbers td { padding: .42rem .55rem; }
  .numbers thead th { min-width: 5.6rem; }
  .numbers tr > :first-child {
    position: sticky; left: 0; background: var(--page); min-width: 0; max-width: 8.5rem;
    white-space: normal; padding-left: 0; border-right: 1px solid var(--rule);
  }
  .numbers caption { position: sticky; left: 0; max-width: calc(100vw - 2rem); }
  :is(.facts, .texts), :is(.facts, .texts) :is(caption, tbody, tr, th, td) {
    display: block; width: 100%;
  }
  :is(.facts, .texts) thead {
    position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  }
  :is(.facts, .texts) tr { border-bottom: 1px solid var(--rule); padding: .6rem 0; }
  :is(.facts, .texts) :is(th, td) { border: 0; padding: .16rem 0; }
  :is(.facts, .texts) tbody th { font-size: 15px; padding-bottom: .3rem; white-space: normal; }
  .facts td { display: flex; justify-content: space-between; gap: 1rem; text-align: right; }
  :is(.facts, .texts) td::before {
    content: attr(data-label); color: var(--soft); text-align: left; flex: 0 1 auto; min-width: 40%;
  }
  .texts td { padding: .3rem 0; }
  .texts td::before { display: block; font-size: 12px; }
}
@media print { nav { display: none; } main { max-width: none; padding: 0; } }
"""
