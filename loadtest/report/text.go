package report

// pageText is the page. Its colours were chosen to be told apart on light and on dark ground, by the colour-blind too
// (Okabe and Ito's set, adapted for contrast).
const pageText = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<title>{{.Title}}</title>
<style>
:root{--bg:#fff;--fg:#1a1c1f;--soft:#5b6168;--line:#d9dde2;--s0:#0072b2;--s1:#d55e00;--s2:#00795a;--s3:#a8487e;--s4:#8a6a00;--s5:#2b8cbe;--s6:#6a51a3;--s7:#444}
@media (prefers-color-scheme:dark){:root{--bg:#15181c;--fg:#e7eaee;--soft:#9aa3ad;--line:#333a42;--s0:#5ab4f0;--s1:#ff9d5c;--s2:#3ecf9f;--s3:#e592bf;--s4:#e6c34a;--s5:#9bd3f5;--s6:#b9a5ea;--s7:#ccc}}
body{background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem}p.soft,.soft{color:var(--soft)}
table{border-collapse:collapse;margin:.6rem 0;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}
th,td{padding:.25rem .5rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}th:first-child,td:first-child,td.l,th.l{text-align:left}
svg{width:100%;height:auto;max-width:60rem;display:block;margin:.4rem 0}svg text{fill:var(--fg);font:12px system-ui,sans-serif}svg .axis{fill:var(--soft)}
svg .grid{stroke:var(--line);stroke-width:1}svg polyline{fill:none;stroke-width:1.8}svg .whisker{stroke:var(--fg);stroke-width:1.2}
.c0,.k0{stroke:var(--s0)}.c1,.k1{stroke:var(--s1)}.c2,.k2{stroke:var(--s2)}.c3,.k3{stroke:var(--s3)}.c4,.k4{stroke:var(--s4)}.c5,.k5{stroke:var(--s5)}.c6,.k6{stroke:var(--s6)}.c7,.k7{stroke:var(--s7)}
.b0{fill:var(--s0)}.b1{fill:var(--s1)}.bad{color:var(--s1);font-weight:600}ul{margin:.3rem 0}
</style></head><body>
<h1>{{.Title}}</h1><p class="soft">{{.Machine}}</p>
{{- if .Runs}}
<h2>Runs</h2>
<div class="scroll"><table><tr><th>run</th><th class="l">target</th><th class="l">workload</th><th>connections</th><th>loop</th><th>ops/s</th><th>not done</th><th>p50 ms</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th><th>generator CPU</th><th class="l">valid</th></tr>
{{- range .Runs}}
<tr><td>{{.Label}}</td><td class="l">{{.Target}}</td><td class="l">{{.Workload.Name}}, {{.Workload.Distribution}}, {{.Workload.Records}} × {{.Workload.ValueSize}} B</td><td>{{.Connections}}</td><td>{{if .Rate}}open, {{whole .Rate}}/s{{else}}closed{{end}}</td><td>{{whole .Throughput}}</td><td>{{.NotDone.Count}}</td><td>{{ms .All.P50US}}</td><td>{{ms .All.P90US}}</td><td>{{ms .All.P99US}}</td><td>{{ms .All.P999US}}</td><td>{{ms .All.MaxUS}}</td><td>{{percent .Generator.CPUShare}}</td><td class="l">{{if .Valid}}yes{{else}}<span class="bad">no</span>{{end}}</td></tr>
{{- end}}</table></div>
{{.Throughput}}
{{.Latencies}}
{{.Longest}}
{{- range .Runs}}
<h2>{{.Label}}</h2>
<p class="soft">{{.Started.UTC.Format "2006-01-02 15:04:05"}} UTC, {{tenth .ElapsedS}} s after {{tenth .WarmUpS}} s of warm-up; {{join .Addresses}}</p>
{{- if or .Faults .Warnings}}<ul>{{range .Faults}}<li class="bad">{{.}}</li>{{end}}{{range .Warnings}}<li>{{.}}</li>{{end}}</ul>{{end}}
<div class="scroll"><table><tr><th>operation</th><th>done</th><th>mean ms</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>p99.99</th><th>max</th><th class="l">outcomes</th></tr>
{{- range .Ops}}
<tr><td>{{.Op}}</td><td>{{.Latency.Count}}</td><td>{{hundred (div .Latency.MeanUS)}}</td><td>{{ms .Latency.P50US}}</td><td>{{ms .Latency.P90US}}</td><td>{{ms .Latency.P95US}}</td><td>{{ms .Latency.P99US}}</td><td>{{ms .Latency.P999US}}</td><td>{{ms .Latency.P9999}}</td><td>{{ms .Latency.MaxUS}}</td><td class="l">{{range $o, $n := .Counts}}{{$o}} {{$n}} {{end}}</td></tr>
{{- end}}</table></div>
{{- if .Servers}}<div class="scroll"><table><tr><th>process</th><th>CPU s</th><th>resident MiB</th></tr>{{range .Servers}}<tr><td>{{.Name}}</td><td>{{hundred .CPUS}}</td><td>{{mib .RSSBytes}}</td></tr>{{end}}</table></div>
<p>{{tenth .ServerCPU}} µs of server CPU for each operation.</p>{{end}}
{{- if .Errors}}<ul>{{range .Errors}}<li>{{.Count}} × {{.Text}}</li>{{end}}</ul>{{end}}
{{- end}}
{{- end}}
{{- range .Comparisons}}
<h2>{{.A}} against {{.B}}</h2>
<p class="soft">{{.Rounds}} rounds; in each the targets took turns, and each had the machine to itself with the generator while the other was idle. Means are geometric; the spread is the least and the greatest round. {{.Title}}</p>
{{.Bars}}
<div class="scroll"><table><tr>{{range .Header}}<th>{{.}}</th>{{end}}</tr>{{range .Rows}}<tr>{{range .}}<td>{{.}}</td>{{end}}</tr>{{end}}</table></div>
{{- if .Syncs}}<table><tr><th>target</th><th>fsyncs</th><th>puts</th><th>fsyncs for each put</th></tr>{{range .Syncs}}<tr><td>{{.Name}}</td><td>{{.Calls}}</td><td>{{whole .Puts}}</td><td>{{hundred .PerPut}}</td></tr>{{end}}</table>{{end}}
<ul>{{range .Notes}}<li>{{.}}</li>{{end}}</ul>
{{- end}}
{{- range .Floors}}
<h2>What operations cost, and what their parts cost alone</h2>
<p class="soft">Values of {{.ValueSize}} bytes, {{.Connections}} connections. Microseconds of CPU, user and system.</p>
<div class="scroll"><table><tr><th>part</th><th>CPU µs</th><th>a second</th><th class="l">what it is</th></tr>{{range .Parts}}<tr><td>{{.Name}}</td><td>{{tenth .CPU}}</td><td>{{whole .Rate}}</td><td class="l">{{.What}}</td></tr>{{end}}</table></div>
{{- range .Operations}}
<h2>{{.Name}}: {{tenth .Cluster}} µs, its parts {{tenth .Sum}} µs, ratio {{hundred .Ratio}}{{if not .Valid}} <span class="bad">not valid</span>{{end}}</h2>
<div class="scroll"><table><tr><th>needs</th><th>times</th><th>CPU µs</th></tr>{{range .Needs}}<tr><td>{{.Part}}</td><td>{{hundred .Times}}</td><td>{{tenth .CPU}}</td></tr>{{end}}</table></div>
<div class="scroll"><table><tr><th>process</th><th>CPU s</th><th>resident MiB</th></tr>{{range .ByProcess}}<tr><td>{{.Name}}</td><td>{{hundred .CPUS}}</td><td>{{mib .RSSBytes}}</td></tr>{{end}}</table></div>
{{- end}}
<ul>{{range .Notes}}<li>{{.}}</li>{{end}}</ul>
{{- end}}
</body></html>
`
