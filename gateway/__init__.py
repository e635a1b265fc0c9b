"""HTTP, websockets, webhooks and the command line: the only room that knows aiohttp."""
