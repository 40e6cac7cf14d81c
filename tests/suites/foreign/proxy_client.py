"""A client with proxy settings: proxy_client.py PROXY ROOTS KIND. Its URLs are http://http/ and https://tcp/.

urllib   the standard library, which is told by http_proxy and https_proxy, and asks for tunnels in HTTP/1.0
httpx    one client for both, told by the same variables
"""

import json
import os
import ssl
import sys
import urllib.request

proxy, roots, kind = sys.argv[1:]
for name in ("http_proxy", "https_proxy"):
    os.environ[name] = f"http://{proxy}"
    os.environ.pop(name.upper(), None)
os.environ.pop("all_proxy", None)
os.environ["no_proxy"] = ""
context = ssl.create_default_context(cafile=roots)


def of_urllib():
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))

    def post(url, body):
        with opener.open(urllib.request.Request(url, data=body), timeout=30) as answer:
            return answer.read()

    return post


def of_httpx():
    import httpx

    client = httpx.Client(verify=context, timeout=30)
    return lambda url, body: client.post(url, content=body).raise_for_status().content


post = {"urllib": of_urllib, "httpx": of_httpx}[kind]()
for url, host in (("http://http", "http"), ("https://tcp", "tcp")):
    for turn in range(20):
        body = b"%d" % turn * 10_000
        assert post(f"{url}/echo?{turn}", body) == body, url
    seen = json.loads(post(f"{url}/seen?a=b", b"four"))
    assert (seen["url"], seen["bytes"]) == ("/seen?a=b", 4), seen
    assert seen["headers"]["host"] == host, seen
print("as claimed")
