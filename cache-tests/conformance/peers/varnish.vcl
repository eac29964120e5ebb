# Varnish as a careful operator would set it up as a shared cache. @NAME@ is filled in by run.mjs.
vcl 4.1;

backend origin {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
}

sub vcl_recv {
    # A client that asks for an end-to-end reload gets one, and refreshes the cache.
    if (req.http.Cache-Control ~ "(^|[ ,])(no-cache|max-age=0)($|[ ,])") {
        set req.hash_always_miss = true;
    }
    set req.http.X-Unsafe = "no";
    if (req.method != "GET" && req.method != "HEAD" && req.method != "OPTIONS" && req.method != "TRACE") {
        set req.http.X-Unsafe = "yes";
    }
}

sub vcl_backend_fetch {
    unset bereq.http.X-Unsafe;
}

sub vcl_backend_response {
    # Bans tested by the lurker may only look at the object.
    set beresp.http.X-Url = bereq.url;
    # RFC 9111 section 5.2.2.4: no-cache may be stored, to be validated before each use.
    if (beresp.http.Cache-Control ~ "(^|[ ,])no-cache($|[ ,])" && beresp.http.Cache-Control !~ "no-store|private"
        && (beresp.http.ETag || beresp.http.Last-Modified)) {
        set beresp.uncacheable = false;
        set beresp.ttl = 0s;
        set beresp.grace = 0s;
        set beresp.keep = 1h;
        return (deliver);
    }
}

sub vcl_deliver {
    # RFC 9111 section 4.4: a successful unsafe request invalidates its target.
    if (req.http.X-Unsafe == "yes" && resp.status >= 200 && resp.status < 400) {
        ban("obj.http.X-Url == " + req.url);
    }
    unset resp.http.X-Url;
}
