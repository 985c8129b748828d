"""Typesetting from scratch: text to page images in four steps, one file each, and only the last one touches pixels.

    words.py, markdown.py    parse     source -> blocks of words; a word knows its face and its place in the source
    lines.py                 break     words  -> lines, by measured width
    blocks.py, tables.py     lay out   blocks -> lines: indents, bullets, columns
    pages.py                 paginate  lines  -> pages -> images

So `fit_style` can try many font sizes without drawing, and each page knows exactly which source text it shows.
`style.py` is what a user chooses, `fonts.py` measures and rasterises characters. `pdf.py` and `pictures.py` open what
is a page already.

No library does this: reportlab, fpdf2, WeasyPrint, Typst and Pillow's own wrapping take 2 to 18 times as long a page,
and none says which part of the source a page shows.
"""
