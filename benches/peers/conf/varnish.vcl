# Varnish as a cache under load. @NAME@ is filled in by rig.py.
vcl 4.1;

backend origin {
    .host = "127.0.0.1";
    .port = "@ORIGIN@";
    .connect_timeout = 3s;
    .first_byte_timeout = 5s;
}

sub vcl_backend_response {
    set beresp.grace = 1h;
    set beresp.keep = 1h;
    if (beresp.status >= 500 && bereq.is_bgfetch) {
        return (abandon);
    }
}
