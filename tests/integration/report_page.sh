#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A migration's page in a browser: all of it is there, nothing lies outside its drawing or the window,
# nothing is loaded, and it can be seen, light and dark.
#
#   report_page.sh [GODWIT]      or GODWIT in the environment
#
# Prints PASS, FAIL or SKIP per case.  Exit 0 ok, 1 failed, 77 no browser.
set -u

GODWIT=${1:-${GODWIT:?usage: report_page.sh GODWIT}}
here=$(dirname "$(readlink -f "$0")")
browser=$(command -v chromium || command -v chromium-browser) || { echo "SKIP report_page: chromium is not installed"; exit 77; }
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp" || exit 1
failed=0

check() { # check NAME COMMAND...
	if "${@:2}" >"$tmp/out" 2>&1; then
		echo "PASS $1"
	else
		echo "FAIL $1"
		tail -5 "$tmp/out"
		failed=1
	fi
}

# A browser of its own home, so that it touches nobody's.
browse() {
	HOME=$tmp timeout -k 5 60 "$browser" --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
		--user-data-dir="$tmp/profile" --hide-scrollbars "$@" 2>>"$tmp/browser.log"
}

shoot() { browse --window-size="$2,1900" --screenshot="$tmp/$1.png" "${@:4}" "file://$tmp/$3"; }

# The page with a script that measures it; the page itself allows none.
measured() {
	python3 - "$1" "$2" <<-'P'
		import sys

		page = open(sys.argv[1], encoding="utf-8").read()
		policy = page.index("<meta http-equiv=")
		page = page[:policy] + page[page.index("\n", policy) + 1:]
		script = """<script>
		let bad = [], seen = 0;
		for (const svg of document.querySelectorAll("svg")) {
			const box = svg.viewBox.baseVal;
			for (const part of svg.querySelectorAll("text,line,rect,path")) {
				const at = part.getBBox();
				seen++;
				if (at.x < -0.5 || at.y < -0.5 || at.x + at.width > box.width + 0.5 || at.y + at.height > box.height + 0.5)
					bad.push(part.outerHTML.slice(0, 80));
			}
		}
		document.querySelector("details").open = true;
		if (document.documentElement.scrollWidth > innerWidth)
			bad.push("wider than the window");
		for (const entry of performance.getEntriesByType("resource"))
			bad.push("loads " + entry.name);
		document.body.dataset.seen = seen;
		document.body.dataset.bad = bad.length + " " + bad.slice(0, 3).join(" ");
		</script>"""
		open(sys.argv[2], "w", encoding="utf-8").write(page.replace("</body>", script + "</body>"))
	P
}

# Colours of a picture: enough that it is not blank, and the one in its corner.
colours() {
	python3 - "$1" <<-'P'
		import struct
		import sys
		import zlib

		data = open(sys.argv[1], "rb").read()
		at, body, head = 8, b"", None
		while at < len(data):
		    size, kind = struct.unpack(">I4s", data[at:at + 8])
		    if kind == b"IHDR":
		        head = struct.unpack(">IIBBBBB", data[at + 8:at + 8 + size])
		    if kind == b"IDAT":
		        body += data[at + 8:at + 8 + size]
		    at += 12 + size
		width, height, depth, colour = head[:4]
		step = {2: 3, 6: 4}[colour]
		raw, line, before, seen, corner = zlib.decompress(body), width * step, bytearray(width * step), set(), None
		for y in range(height):
		    how, now = raw[y * (line + 1)], bytearray(raw[y * (line + 1) + 1:(y + 1) * (line + 1)])
		    for i in range(line):
		        a, b, c = (now[i - step] if i >= step else 0), before[i], (before[i - step] if i >= step else 0)
		        if how == 4:
		            p = a + b - c
		            pick = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
		        now[i] = (now[i] + (0, a, b, (a + b) // 2, pick if how == 4 else 0)[how]) & 255
		    before = now
		    corner = corner or tuple(now[:3])
		    seen.update(bytes(now[x:x + 3]) for x in range(0, line, 4 * step))
		print(len(seen), sum(corner))
	P
}

is_seen() { # is_seen PICTURE LEAST MOST: it is not blank, and its ground is so bright
	local many ground
	read -r many ground < <(colours "$tmp/$1.png") || return 1
	echo "$many colours, ground $ground"
	[ "$many" -ge 30 ] && [ "$ground" -ge "$2" ] && [ "$ground" -le "$3" ]
}

has_all() {
	local id
	for id in timeline legend sent dirty left throttle faults phases phase-table bytes-table time-table post-table round-table; do
		grep -q "id=\"$id\"" "$1" || { echo "no $id"; return 1; }
	done
	for id in blackout cut mk hit rd; do
		grep -q "class=\"$id\"" "$1" || { echo "no $id"; return 1; }
	done
}

loads_nothing() {
	! grep -oE '(https?|ftp|data|file):[^" <]*' "$1" | grep -vx 'http://www.w3.org/2000/svg' &&
		! grep -qiE '<(script|img|link|iframe|object|embed)|url\(|@import| on[a-z]+=' "$1"
}

is_measured() {
	grep -oE 'data-(seen|bad)="[^"]*"' "$1"
	grep -q 'data-bad="0 "' "$1" && grep -qE 'data-seen="[0-9]{3,}"' "$1"
}

python3 "$here/report_sample.py" sample.json || exit 1
check page.written "$GODWIT" vm report --from sample.json --report page.html
check page.loads_nothing loads_nothing page.html
browse --dump-dom "file://$tmp/page.html" >dom.html
check page.in_the_browser has_all dom.html
measured page.html measured.html
browse --window-size=1100,1900 --dump-dom "file://$tmp/measured.html" >wide.html
check page.within_its_drawing is_measured wide.html
browse --window-size=520,1900 --dump-dom "file://$tmp/measured.html" >narrow.html
check page.in_a_narrow_window is_measured narrow.html
shoot light 1000 page.html
check page.seen_light is_seen light 600 765
shoot dark 1000 page.html --blink-settings=preferredColorScheme=0
check page.seen_dark is_seen dark 10 200
exit $failed
