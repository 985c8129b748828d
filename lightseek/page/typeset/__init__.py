"""Typesetting from scratch: four steps turn text into page images, and only the last step draws pixels.

    words.py, markdown.py    parse     source -> blocks of words; each word knows its face and its place in the source
    lines.py                 break     words  -> lines, by measured width
    blocks.py, tables.py     lay out   blocks -> lines: indents, bullets, columns
    drawing.py               draw      lines  -> pages -> images

So `fit_style` can try many font sizes without drawing, and each page knows exactly which source text it shows.
`style.py` holds the choices of a user, and `fonts.py` measures and rasterises characters.

No library does this. reportlab, fpdf2, WeasyPrint, Typst and Pillow's own wrapping need 2 to 18 times as long for a
page, and they do not say which part of the source a page shows.
"""
