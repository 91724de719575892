"""The page and the style of a report: for a wide screen, a telephone and paper."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="warning">{warning}</p>
<p class="made">Written by murakit, {made}.</p>
<nav><ul>{contents}</ul></nav>
</header>
<main>{body}</main>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  padding: 1rem; max-width: 60rem; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.25rem; border-bottom: 1px solid #bbb; padding-bottom: 0.2rem; margin-top: 2.2rem; }
h3 { font-size: 1.05rem; margin-bottom: 0.3rem; }
a { color: #08306b; }
.warning { border: 2px solid #a33; padding: 0.5rem 0.8rem; font-weight: 600; }
.made { color: #555; font-size: 0.9rem; }
nav ul { padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: 0.2rem 1rem; list-style: none; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: 0.6rem; }
.card { border: 1px solid #bbb; padding: 0.5rem 0.7rem; display: flex; flex-direction: column; }
.card .name, .card .range { color: #444; font-size: 0.85rem; }
.card .value { font-size: 1.6rem; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 0.8rem 0; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; }
thead th { border-bottom: 2px solid #888; }
tbody th, td:first-child, th:first-child { text-align: left; }
table.text td, table.text th { text-align: left; white-space: normal; min-width: 6rem; vertical-align: top; }
table.text td:nth-child(2) { white-space: nowrap; }
table.parameters td, table.parameters th { text-align: left; font-weight: 400; white-space: normal;
  overflow-wrap: anywhere; }
table.parameters tr.set th, table.parameters tr.set td { font-weight: 700; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: 0.85rem; color: #444; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.5rem;
  align-items: start; }
@media print {
  body { max-width: none; font-size: 10pt; padding: 0; }
  nav { display: none; }
  figure, .cards, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 7pt; }
  th, td { white-space: normal; padding: 0.1rem 0.3rem; }
  .pair { grid-template-columns: 1fr 1fr; }
  a { color: inherit; text-decoration: none; }
}
"""
