"""Route tables and requests by chance: everything that one configuration of routes can say, in small alphabets, so that much of it meets."""
from common import T

CLUSTERS = ["a", "b", "c"]
METHODS = ["GET", "GET", "GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH", "PURGE"]
SEGMENTS = ["a", "b", "aa", "ab", "A", "api", "v1", "x.y", "a-b", "a_b", "1"]
ODD_SEGMENTS = ["%41", "%2F", "%2f", "%5C", "..", ".", "", "a%20b", "a;p=1", "%C3%A9", "a:b", "~", "a,b", "a=b", "%2e%2e", "*", "a'b", "(a)", "%", "%zz"]
NAMES = ["x-a", "x-b", "x-c", "user-agent", "cookie", "content-type"]
VALUES = ["1", "2", "10", "-5", "a", "A", "ab", "abc", "a,b", "text/html", "application/grpc", "", "007", "a b", "1x", "99999999999999999999"]
PARAMETERS = ["q", "r", "a"]
ANSWERS = [200, 201, 204, 301, 304, 400, 404, 409, 418, 429, 500, 502, 503, 504]
RETRY_ON = ["5xx", "gateway-error", "retriable-4xx", "retriable-status-codes", "retriable-headers", "connect-failure", "reset", "refused-stream", "envoy-ratelimited", "unavailable", "cancelled", "reset-before-request"]
FORMATS = ["%REQ(x-a)%", "%REQ(x-a?x-b)%", "%PROTOCOL%", "%REQ(:method)%-%REQ(:path)%", "100%%", "%REQ(:authority)%", "%ROUTE_NAME%", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "%REQ(x-b):2%",
           "%UPSTREAM_CLUSTER%", "%REQ(none)%", "plain", "two words", "", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "%QUERY_PARAM(q)%"]
ACTIONS = ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]
REGEXES = ["/a.*", "/[^/]+", "/(a|b)/.*", "/api/v[0-9]+(/.*)?", ".*", "/a", "^/a/b$", "/a+", "(?i)/A.*", "/.*/b", "\\S+"]
DOMAINS = ["a.test", "b.test", "*.test", "*.x.test", "a.*", "a.x.*", "*", "a.test:8080", "*.test:8080", "A.Test", "[::1]", "*-b.test", "a-*"]
HOSTS = ["a.test", "a.test", "b.test", "q.x.test", "a.x.test", "a.other", "a.test:8080", "A.TEST", "z", "a.test.", "x.test", "[::1]", "[::1]:8080", "q.b.test:8080", "a-b.test", "a.x.y:80", "127.0.0.1", ".test", "a."]

# As Envoy, and not as docs/adr/0010-retry-safety.md has it.
RESEND = {"filter_metadata": {"outrigger": {"retry_non_idempotent": True}}}


class Chance:
    """What is drawn for one table."""

    def __init__(self, random):
        self.r, self.n = random, 0

    def often(self, share):
        return self.r.random() < share

    def one(self, list_):
        return self.r.choice(list_)

    def some(self, most, make):
        return [make() for _ in range(self.r.randint(0, most))]

    def path(self, odd=0.15, longest=4):
        pool = lambda: ODD_SEGMENTS if self.often(odd) else SEGMENTS
        parts = [self.one(pool()) for _ in range(self.r.randint(0, longest))]
        return "/" + "/".join(parts) + ("/" if parts and self.often(0.2) else "")

    # Matching.
    def text(self, of):
        kind = self.one(["exact", "prefix", "suffix", "contains", "safe_regex"])
        value = self.one(of)
        if kind == "safe_regex":
            return {"safe_regex": {"regex": self.one(["a.*", "[0-9]+", ".*", "(a|b)+", "A", ""][:5])}}
        if kind != "exact" and not value:
            kind = "exact"
        return {kind: value} | ({"ignore_case": True} if self.often(0.3) else {})

    def header(self):
        name = self.one(NAMES[:3] * 3 + NAMES + [":method", ":path", ":authority", ":scheme"])
        values = {":method": METHODS, ":path": ["/a", "/", "/a?q=1", "/api"], ":authority": HOSTS, ":scheme": ["http", "https"]}.get(name, VALUES)
        match = {"name": name}
        kind = self.r.random()
        if kind < 0.15:
            match["present_match"] = self.often(0.6)
        elif kind < 0.3:
            low = self.r.randint(-10, 12)
            match["range_match"] = {"start": low, "end": low + self.r.randint(0, 10)}
        elif kind < 0.4:
            kind = self.one(["exact_match", "prefix_match", "suffix_match", "contains_match"])
            match[kind] = self.one([v for v in values if v])
        elif kind > 0.95:
            pass
        else:
            match["string_match"] = self.text(values)
        if self.often(0.25):
            match["invert_match"] = True
        if self.often(0.15):
            match["treat_missing_header_as_empty"] = True
        return match

    def parameter(self):
        match = {"name": self.one(PARAMETERS)}
        kind = self.r.random()
        if kind < 0.3:
            match["present_match"] = self.often(0.7)
        elif kind < 0.9:
            match["string_match"] = self.text(["1", "2", "abc", "%31", "a+b"])
        return match

    def match(self):
        kind = self.r.random()
        if kind < 0.4:
            match = {"prefix": self.one(["/", self.path(0.03, 2), "/a", "/api/", "/a/b", ""])}
        elif kind < 0.6:
            match = {"path": self.path(0.05, 2)}
        elif kind < 0.75:
            match = {"safe_regex": {"regex": self.one(REGEXES)}}
        elif kind < 0.88:
            match = {"path_separated_prefix": "/" + "/".join(self.one(SEGMENTS) for _ in range(self.r.randint(1, 2)))}
        else:
            template = self.one(["/{v}/b", "/a/{v}", "/a/{v=**}", "/{v=a/*}/b", "/a/*/{v}", "/{v=*}", "/**", "/api/{v=v1/**}", "/{v}/{w}.y", "/a/{v=*}/b"])
            match = {"path_match_policy": {"name": "t", "typed_config": {"@type": T + "path.match.uri_template.v3.UriTemplateMatchConfig", "path_template": template}}}
        if "path_match_policy" not in match and "safe_regex" not in match and self.often(0.2):
            match["case_sensitive"] = False
        if self.often(0.3):
            match["headers"] = [self.header() for _ in range(self.r.randint(1, 2))]
        if self.often(0.2):
            match["query_parameters"] = [self.parameter() for _ in range(self.r.randint(1, 2))]
        if self.often(0.04):
            match["grpc"] = {}
        if self.often(0.05):
            match["runtime_fraction"] = {"default_value": {"numerator": self.one([0, 100]), "denominator": "HUNDRED"}}
        return match

    # Edits.
    def edit(self):
        option = {"header": {"key": self.one(["x-a", "x-b", "x-new", "x-envoy-upstream-service-time", "user-agent", "X-Upper", "cookie"] if self.often(0.9) else ["x-forwarded-for", "content-type", "x-request-id", "server"]), "value": self.one(FORMATS)}}
        if self.often(0.7):
            option["append_action"] = self.one(ACTIONS)
        elif self.often(0.3):
            option["append"] = self.often(0.5)
        if self.often(0.3):
            option["keep_empty_value"] = True
        return option

    def edits(self, share=0.3):
        out = {}
        if self.often(share):
            out["request_headers_to_add"] = [self.edit() for _ in range(self.r.randint(1, 2))]
        if self.often(share):
            out["response_headers_to_add"] = [self.edit() for _ in range(self.r.randint(1, 2))]
        if self.often(share / 2):
            out["request_headers_to_remove"] = [self.one(["x-a", "x-b", "user-agent", "x-envoy-original-path", "cookie", "x-forwarded-proto"])]
        if self.often(share / 2):
            out["response_headers_to_remove"] = [self.one(["x-a", "x-b", "x-said", "content-type", "server", "x-envoy-upstream-service-time"])]
        return out

    def regex_rewrite(self):
        return {"pattern": {"regex": self.one(["^/a(.*)$", "a", "/([^/]+)/([^/]+)", "^/api/v([0-9]+)", "[a-z]", "b*"])}, "substitution": self.one(["/n\\1", "/\\2/\\1", "", "/x", "\\0\\0"])}

    def usable(self, rewrite):
        groups = rewrite["pattern"]["regex"].count("(")
        return all(int(n) <= groups for n in [c for a, c in zip(rewrite["substitution"], rewrite["substitution"][1:]) if a == "\\"])

    def a_regex_rewrite(self):
        while not self.usable(rewrite := self.regex_rewrite()):
            pass
        return rewrite

    def retry(self):
        policy = {"retry_on": ",".join(sorted(set(self.one(RETRY_ON) for _ in range(self.r.randint(1, 3))))), "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.002s"}}
        if self.often(0.7):
            policy["num_retries"] = self.r.randint(0, 3)
        if self.often(0.5):
            policy["retriable_status_codes"] = [self.one(ANSWERS) for _ in range(2)]
        if self.often(0.3):
            policy["retriable_headers"] = [{"name": "x-said", "string_match": {"exact": self.one(["1", "a"])}}]
        if self.often(0.2):
            policy["retriable_request_headers"] = [{"name": self.one(["x-a", ":method"]), "string_match": {"prefix": self.one(["1", "G", "a"])}}]
        if self.often(0.3):
            policy["per_try_timeout"] = "3s"
        return policy

    # Actions.
    def forward(self, match):
        action = {"timeout": self.one(["0s", "20s", "7.5s"])} if self.often(0.6) else {}
        kind = self.r.random()
        if kind < 0.7:
            action["cluster"] = self.one(CLUSTERS)
        elif kind < 0.85:
            action["cluster_header"] = self.one(["x-cluster", "x-a", ":authority"])
            if self.often(0.5):
                action["cluster_not_found_response_code"] = self.one(["SERVICE_UNAVAILABLE", "NOT_FOUND", "INTERNAL_SERVER_ERROR"])
        else:
            shares = [{"name": c, "weight": self.r.randint(0, 5)} | self.edits(0.2) | ({"host_rewrite_literal": "w.test"} if self.often(0.1) else {}) for c in CLUSTERS]
            action["weighted_clusters"] = {"clusters": shares, "header_name": "x-number"}
            if not sum(share["weight"] for share in shares):
                shares[0]["weight"] = 1
        kind = self.r.random()
        if kind < 0.15 and "path_match_policy" not in match:
            action["prefix_rewrite"] = self.one(["/", "/n", "/n/", "/n?z=1", "/%41"])
        elif kind < 0.27:
            action["regex_rewrite"] = self.a_regex_rewrite()
        elif kind < 0.5 and "path_match_policy" in match:
            template = match["path_match_policy"]["typed_config"]["path_template"]
            if "{v" in template:
                action["path_rewrite_policy"] = {"name": "r", "typed_config": {"@type": T + "path.rewrite.uri_template.v3.UriTemplateRewriteConfig", "path_template_rewrite": self.one(["/n/{v}", "/{v}", "/n{v}m"])}}
        kind = self.r.random()
        if kind < 0.15:
            action["host_rewrite_literal"] = self.one(["new.test", "new.test:80", "N"])
        elif kind < 0.22:
            action["host_rewrite_header"] = self.one(["x-host", "x-none", "X-Host"])
        elif kind < 0.3:
            action["host_rewrite_path_regex"] = {"pattern": {"regex": "^/([a-zA-Z0-9]*).*$"}, "substitution": self.one(["\\1.test", "n"])}
        elif kind < 0.33:
            action["auto_host_rewrite"] = True
        if self.often(0.2):
            action["append_x_forwarded_host"] = True
        if self.often(0.35):
            action["retry_policy"] = self.retry()
        if self.often(0.05):
            action["priority"] = "HIGH"
        return {"route": action} | ({"metadata": RESEND} if "retry_policy" in action else {})

    def redirect(self):
        to = {}
        kind = self.r.random()
        if kind < 0.2:
            to["https_redirect"] = True
        elif kind < 0.3:
            to["scheme_redirect"] = self.one(["https", "http", "ftp"])
        if self.often(0.4):
            to["host_redirect"] = self.one(["new.test", "new.test:81", "N"])
        if self.often(0.3):
            to["port_redirect"] = self.one([80, 443, 8080])
        kind = self.r.random()
        if kind < 0.3:
            to["path_redirect"] = self.one(["/n", "/n?z=1", "/n#f", "/"])
        elif kind < 0.5:
            to["prefix_rewrite"] = self.one(["/n", "/n/", "/n?z=1"])
        elif kind < 0.65:
            to["regex_rewrite"] = self.a_regex_rewrite()
        if self.often(0.3):
            to["strip_query"] = True
        if self.often(0.5):
            to["response_code"] = self.one(["FOUND", "SEE_OTHER", "TEMPORARY_REDIRECT", "PERMANENT_REDIRECT", "MOVED_PERMANENTLY"])
        return {"redirect": to}

    def direct(self):
        direct = {"status": self.one([200, 201, 204, 301, 302, 304, 400, 404, 418, 503, 599])}
        # What may have no content: Envoy sends it nevertheless.
        if direct["status"] not in (204, 304) and self.often(0.6):
            direct["body"] = {"inline_string": self.one(["short", "{\"a\":1}", "x" * 300])}
        return {"direct_response": direct}

    def route(self):
        self.n += 1
        match = self.match()
        kind = self.r.random()
        if kind < 0.72:
            action = self.forward(match)
        elif kind < 0.87:
            action = self.redirect()
            if "path_match_policy" in match or "safe_regex" in match:
                action["redirect"].pop("prefix_rewrite", None)
        else:
            action = self.direct()
        return {"match": match, "name": f"r{self.n}"} | action | self.edits(0.25)

    def host(self, domains):
        self.n += 1
        host = {"name": f"h{self.n}", "domains": domains, "routes": [self.route() for _ in range(self.r.randint(2, 9))]} | self.edits(0.15)
        if self.often(0.6):
            host["routes"].append({"match": {"prefix": "/"}, "route": {"cluster": self.one(CLUSTERS)}, "name": "rest"})
        if self.often(0.06):
            host["require_tls"] = self.one(["ALL", "EXTERNAL_ONLY"])
        if self.often(0.15):
            host["include_request_attempt_count"] = True
        if self.often(0.15):
            host["include_attempt_count_in_response"] = True
        if self.often(0.15):
            host |= {"retry_policy": self.retry(), "metadata": RESEND}
        return host

    def table(self):
        domains = self.r.sample(DOMAINS, self.r.randint(1, 8))
        if "a.test" in domains and "A.Test" in domains:
            domains.remove("A.Test")
        if self.often(0.7) and "*" not in domains:
            domains.append("*")
        hosts, at = [], 0
        while at < len(domains):
            take = self.r.randint(1, 3)
            hosts.append(self.host(domains[at:at + take]))
            at += take
        table = {"name": "t", "virtual_hosts": hosts, "validate_clusters": False} | self.edits(0.15)
        if self.often(0.8):
            table.setdefault("response_headers_to_add", []).append({"header": {"key": "x-route", "value": "%ROUTE_NAME%"}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"})
        if self.often(0.15):
            table["internal_only_headers"] = [self.one(["x-a", "x-b"])]
        if self.often(0.3):
            table["most_specific_header_mutations_wins"] = True
        if self.often(0.2):
            table["ignore_port_in_host_matching"] = True
        return table

    def manager(self):
        """What else a connection manager says."""
        out, router = {"server_name": "edge"}, {}
        for share, name, value in [(0.3, "normalize_path", True), (0.2, "merge_slashes", True), (0.3, "use_remote_address", True), (0.15, "skip_xff_append", True), (0.2, "via", "edge"),
                                   (0.5, "generate_request_id", False), (0.2, "preserve_external_request_id", True), (0.15, "always_set_request_id_in_response", True)]:
            if self.often(share):
                out[name] = value
        if self.often(0.25):
            out["xff_num_trusted_hops"] = self.r.randint(1, 2)
        if self.often(0.25):
            out["path_with_escaped_slashes_action"] = self.one(["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_REDIRECT", "UNESCAPE_AND_FORWARD"])
        if self.often(0.3):
            out["server_header_transformation"] = self.one(["APPEND_IF_ABSENT", "PASS_THROUGH"])
        if self.often(0.15):
            out["strip_any_host_port"] = True
        if self.often(0.1):
            out["scheme_header_transformation"] = {"scheme_to_overwrite": self.one(["http", "https"])}
        if self.often(0.15):
            router["suppress_envoy_headers"] = True
        return out, router

    # Requests.
    def target(self):
        path = self.path()
        if self.often(0.35):
            path += "?" + self.one(["q=1", "q=", "q", "q=1&q=2", "r=abc", "q=%31", "", "a=b&q=abc", "q=a+b&r=2", "&q=1", "q=1;r=2", "?q=1", "=1", "q==1", "q=1#f"[:3]])
        return path

    def request(self):
        fields = [("host", self.one(HOSTS))]
        for _ in range(self.r.randint(0, 4)):
            name = self.one(NAMES[:3] * 3 + NAMES)
            fields.append((self.one([name, name.upper(), name.title()]), self.one(VALUES)))
        for share, name, values in [(0.3, "x-cluster", ["a", "b", "zz", ""]), (1, "x-number", [str(self.r.randint(0, 20)), "18446744073709551615", "7"]), (0.15, "x-forwarded-for", ["1.2.3.4", "1.2.3.4, 10.0.0.1", "x", "10.0.0.1", "", "::1"]),
                                    (0.12, "x-forwarded-proto", ["https", "http", "ftp"]), (0.1, "x-forwarded-host", ["f.test"]), (0.1, "x-request-id", ["abc", "7d7a6bd4-8f4f-9a6b-8c1e-1b1f6d8f2f3a"]), (0.05, "x-envoy-internal", ["true"]),
                                    (0.05, "x-envoy-original-path", ["/o"]), (0.04, "x-envoy-decorator-operation", ["op"]), (0.05, "x-envoy-attempt-count", ["7"]), (0.05, "te", ["trailers", "gzip", "gzip, trailers"]), (0.04, "connection", ["keep-alive", "x-a", "close", "x-a, x-b", "te"]),
                                    (0.03, "upgrade", ["websocket", "h2c"]), (0.03, "proxy-connection", ["keep-alive"]), (0.03, "keep-alive", ["timeout=5"]), (0.03, "proxy-authorization", ["Basic eA=="]), (0.03, "x-forwarded-client-cert", ["By=x"]), (0.03, "via", ["1.1 other"]), (0.2, "x-host", ["h.test", "h.test:80", ""]),
                                    (0.03, "date", ["Mon, 01 Jan 2024 00:00:00 GMT"]), (0.03, "expect", ["100-continue", "other"]), (0.02, "x-forwarded-port", ["99"]), (0.02, "range", ["bytes=0-1"]), (0.02, "x_under", ["1"]), (0.02, "referer", ["http://a.test/"]), (0.02, "origin", ["http://a.test"]),
                                    (0.06, "x-envoy-max-retries", ["0", "2", "x"]), (0.06, "x-envoy-retry-on", ["5xx", "retriable-status-codes", "x"]), (0.03, "x-envoy-retriable-status-codes", ["404,409"]), (0.03, "x-envoy-upstream-rq-timeout-ms", ["5000", "x", "0"]),
                                    (0.03, "x-envoy-upstream-rq-per-try-timeout-ms", ["4000"]), (0.02, "x-envoy-upstream-alt-stat-name", ["z"]), (0.02, "x-envoy-expected-rq-timeout-ms", ["3"]), (0.02, "grpc-timeout", ["5S"]), (0.02, "x-envoy-ip-tags", ["t"]), (0.02, "x-envoy-retry-grpc-on", ["unavailable"]),
                                    (0.02, "x-envoy-retriable-header-names", ["x-said"]), (0.02, "x-envoy-hedge-on-per-try-timeout", ["true"]), (0.02, "x-envoy-downstream-service-cluster", ["dc"]), (0.02, "x-envoy-external-address", ["9.9.9.9"])]:
            if self.often(share):
                fields.append((name, self.one(values)))
        says = [f"x-said={self.one(['1', 'a', ''])}"] if self.often(0.3) else []
        for share, say in [(0.05, "server=origin"), (0.04, "x-envoy-overloaded=true"), (0.04, "keep-alive=timeout=5"), (0.04, "x-envoy-upstream-service-time=7"), (0.03, "date=Mon, 01 Jan 2024 00:00:00 GMT"), (0.04, "via=1.1 origin"), (0.03, "x-request-id=own"),
                           (0.03, "x-envoy-attempt-count=9"), (0.05, "set-cookie=a=1"), (0.05, "content-type=text/html"), (0.04, "location=http://a.test/x"), (0.03, "x-envoy-ratelimited=true"), (0.03, "grpc-status=14"), (0.02, "x-a="), (0.03, "x-a=up"), (0.02, "trailer=x-t"), (0.02, "proxy-authenticate=Basic"),
                           (0.02, "x-envoy-degraded=true"), (0.02, "x-envoy-immediate-health-check-fail=1"), (0.02, "alt-svc=h3"), (0.02, "content-length="), (0.02, "x-envoy-decorator-operation=op"), (0.02, "upgrade=h2c")]:
            if self.often(share):
                says.append(say)
        script = [str(self.one(ANSWERS)) for _ in range(self.r.randint(1, 4))] if self.often(0.5) else ["200"]
        fields.append(("x-script", ",".join(script)))
        if says:
            fields.append(("x-say", "|".join(says)))
        method = self.one(METHODS)
        body = self.one([b"", b"x", b"body" * 50]) if method in ("POST", "PUT", "PATCH", "PURGE") and self.often(0.8) else None
        return {"method": method, "target": self.target(), "fields": fields, "body": body, "chunked": body is not None and self.often(0.3)}
