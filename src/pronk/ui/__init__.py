"""Pages that a person works with in the browser.

    blind_test.py   the story of `pronk arena`; arena.py is who votes on what, and when names are told
    local_page.py   the web server of such a page: this machine only, one person, nothing from elsewhere
    page.css, .js   what all pages share: colours, asking the server, texts that stay texts

A page is NAME.html, NAME.css and NAME.js; see `local_page.read_page`.
"""
