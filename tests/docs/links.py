"""An mdBook preprocessor for the links of the pages.

Links that leave the folder of the book become text with the path in the repository. Links to a README.md lead to the
index.html that mdBook makes of it.
"""

import json
import posixpath
import re
import sys

LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s:]+)\)")


def on_page(folder, page):
    """Makes the replacement for the links of one page. `page` is its path below `folder`, that of the book."""

    def replaced(link):
        text, target = link.groups()
        path = posixpath.normpath(posixpath.join(folder, posixpath.dirname(page), target))
        if not target.startswith("#") and not path.startswith(folder + "/"):
            return text if text.strip("`").rstrip("/") == path else f"{text} (`{path}`)"
        return f"[{text}]({re.sub(r'README[.]md(?=#|$)', 'index.md', target)})"

    return replaced


def walk(items, folder):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            if chapter.get("source_path"):
                replaced = on_page(folder, chapter["source_path"])
                chapter["content"] = LINK.sub(replaced, chapter["content"])
            walk(chapter["sub_items"], folder)


def main():
    if sys.argv[1:2] == ["supports"]:
        return
    context, book = json.load(sys.stdin)
    walk(book["items"], context["config"]["book"]["src"])
    json.dump(book, sys.stdout)


main()
