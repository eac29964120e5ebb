//! What fuzzing begins with: values that are sent, and some that were made to hurt.

/// Blocks of field lines. An empty line, where there is one, stands between a stored response and what updates it.
pub(super) const BLOCKS: &[&[u8]] = &[
    b"Host: example.com\r\nAccept: */*\r\nCookie: a=b; c=\"d, e\"\r\n",
    b"Cache-Control: max-age=60\r\nETag: \"a\"\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nAge: 5\r\nContent-Length: 3\r\n\
      \nDate: Sun, 06 Nov 1994 08:50:37 GMT\r\nETag: \"b\"\r\nContent-Length: 0\r\nX-New: 1\r\n",
    b"a: 1\r\na: 2\r\nvary: accept\r\n\nConnection: a, keep-alive\r\na: 3\r\nvary: *\r\nset-cookie: x\r\n",
    b"Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\nAge: 1\n\nconnection: date, age\ndate: x\nage: 9\n",
    b"Age: 7200, 0\r\nExpires: Sun, 06 Nov 1994 09:49:37 GMT\r\nLast-Modified: Sat, 05 Nov 1994 08:49:37 GMT\r\n\
      \nCache-Control: max-stale=60, max-age=99999999999\r\nIf-Match: \"a\"\r\n",
    b"age: 99999999999999999999\ndate: Fri, 31 Dec 9999 23:59:59 GMT\ncache-control: max-age=60, stale-if-error=9\n\
      \ncache-control: max-stale\n",
    b"date: Thu, 01 Jan 1970 00:00:00 GMT\ncache-control: s-maxage=4294967296, stale-while-revalidate=2147483647\n",
    b": no name\r\nno colon\r\n\tfolded: x\r\nname : y\r\na:\r\nb:\r\r\n",
    b"list: a=\"1,2\", \"b\\\",c\", , d=\"open\r\n",
    b"x:\0\r\ny: \xff\xfe\r\n",
];

pub(super) const DATES: &[&[u8]] = &[
    b"Sun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
    b"Sun Nov 16 08:49:37 1994",
    b"Thu, 29 Feb 2024 23:59:60 GMT",
    b"Tue, 29 Feb 2000 00:00:00 gmt",
    b"Fri, 31 Dec 9999 23:59:59 GMT",
    b"Thu, 01 Jan 1970 00:00:01 GMT",
    b"Sat, 01 Jan 0000 00:00:00 GMT",
    b"Wednesday, 31-Dec-69 23:59:59 GMT",
    b"Thursday, 01-Jan-70 00:00:00 GMT",
    b"Wed, 29 Feb 2023 00:00:01 GMT",
    b"Mon, 29 Feb 2100 00:00:01 GMT",
    b"Wed, 31 Apr 2024 00:00:01 GMT",
    b"Wed, 00 May 2024 00:00:01 GMT",
    b"Wed, 01 May 2024 24:00:00 GMT",
    b"Wed, 01 May 2024 00:60:00 GMT",
    b"Sun, 06 Nov 1994 08:49:37 +0000",
    b"Sun, 06-Nov-1994 08:49:37 GMT",
    b"0",
    b"-1",
];

pub(super) const RANGES: &[&[u8]] = &[
    b"bytes=0-1",
    b"bytes=0-",
    b"bytes=-1",
    b"bytes=0-0,2-3, 5-",
    b"bytes=4-5,0-1,-1",
    b"bytes=9-0",
    b"bytes=-0",
    b"bytes=0-18446744073709551615",
    b"bytes=18446744073709551614-18446744073709551615,-18446744073709551616",
    b"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30",
    b"bytes=0-0,2-2,4-4,6-6,8-8,10-10,12-12,14-14,16-16,18-18,20-20,22-22,24-24,26-26,28-28,30-30,32-32",
    b"bytes=0-,0-,0-,0-,0-,0-,0-,0-",
    b"bytes=0-10\n5-20",
    b"bytes = 0 - 1",
    b"bytes=\"0-1\",2-3",
    b"lines=1-2",
];

/// `If-Range`, and below it what it is compared with.
pub(super) const VALIDATORS: &[&[u8]] = &[
    b"\"a\"\n\"a\"",
    b"\"a\"\n\"b\"",
    b"W/\"a\"\nW/\"a\"",
    b"\"\n\"",
    b"a\na",
    b"Sun, 06 Nov 1994 08:49:37 GMT\nSun, 06 Nov 1994 08:49:37 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT\nSun Nov  6 08:49:37 1994",
    b"Sun, 06 Nov 1994 08:49:38 GMT\nSun, 06 Nov 1994 08:49:38 GMT",
];

pub(super) const DIRECTIVES: &[&[u8]] = &[
    b"max-age=60",
    b"public, max-age=31536000, immutable",
    b"private, no-store, max-age=0, must-revalidate",
    b"no-cache=\"set-cookie, x-a\", s-maxage=\"5\"",
    b"s-maxage=600, stale-while-revalidate=30, stale-if-error=86400, proxy-revalidate",
    b"MAX-AGE=60, No-Store, must-understand",
    b"max-age=2147483648, s-maxage=-1, stale-if-error=1.5",
    b"max-age =1, max-age= 2, max-age='3', max-age",
    b"x=\"max-age=9, no-store\", max-age=\"60",
    b"no-cache=\"a\nb\", no-cache=\"c\"",
    b"private=\"a\", no-cache=\"\", no-cache=\" , \"",
    b"no-store=?0, max-age=60;a=1;b=\"c\", foo=(1 2)",
    b"max-stale, min-fresh=5, only-if-cached",
    b"max-stale=10, max-age=0\nno-cache",
    b",,, ,",
];

pub(super) const NUMBERS: &[&[u8]] =
    &[b"0", b"60", b"2147483647", b"\"4294967296\"", b"00000000000000000000001", b"1e3"];

pub(super) const DICTIONARIES: &[&[u8]] = &[
    b"max-age=60, no-store",
    b"a=?0, b, c=?1;x;y=2, *d=1.5",
    b"a=\"x\\\",\\\\\", b=tok/en:*, c=:aGk=:, d=(1 \"2\";q 3);z",
    b"a=-999999999999999, b=999999999999.999",
    b"a=1\na=2, b=3",
    b"a=\"1\nb\", no-cache=\"c\"",
    b"a=(), b=( 1  2 )",
    b"a;b;c;d;e=\"f\";g=:aa:",
    b"A=1",
    b"a=1,",
    b"a=1.,b=.1,c=--1",
    b"key-_.*0=1, a\t,\tb",
];

pub(super) const NAMES: &[&[u8]] = &[
    b"Accept-Encoding",
    b"accept-encoding, Accept, ACCEPT-LANGUAGE",
    b"*",
    b"origin\ncookie, x-a",
    b"a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p",
    b"a, A, a, a, b",
    b"\"a, b\", c",
    b"x-\xc3\x84, \xff",
    b", ,",
];

pub(super) const PREFERENCES: &[&[u8]] = &[
    b"gzip, deflate, br, zstd",
    b"text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    b"de-CH, de;q=0.9, en;q=0.50\nfr ; Q=1.000",
    b"a/b;c=\"d, e;q=0.1\";q=0.3;f, A/B;C=D",
    b"gzip;q=0, identity;q=0.001, *;q=0.0000, br;q=2, x;q=1.5, y;q=.5, z;q=",
    b"a;q=0.1;q=0.2, ;q=1, ;q=0, ;;",
    b"a\\\"b, \"c\\\", d\", \"open",
    b"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r,s,t,u,v,w,x,y,z,0,1,2,3,4,5",
    b"key=value; other=\"x\"; flag",
    b"",
];
