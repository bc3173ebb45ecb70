//! Functions of filters that are written in jq.

/// Functions that are written in jq.
pub(super) const PRELUDE: &str = r#"
def null: [][0];
def values: select(. != null);
def nulls: select(. == null);
def booleans: select(type == "boolean");
def numbers: select(type == "number");
def strings: select(type == "string");
def arrays: select(type == "array");
def objects: select(type == "object");
def iterables: select(type == "array" or type == "object");
def scalars: select(type != "array" and type != "object");
def add(f): reduce f as $x (null; . + $x);
def add: add(.[]);
def keys: keys_unsorted;
def in(xs): . as $x | xs | has($x);
def inside(xs): . as $x | xs | contains($x);
def index($i): indices($i)[0];
def rindex($i): indices($i)[-1];
def unique: unique_by(.);
def min: min_by(.);
def max: max_by(.);
def sort: sort_by(.);
def abs: if . < 0 then - . else . end;
def flatten: flatten(1000);
def match(re; flags): matches(re; flags)[];
def test(re; flags): matches(re; flags) | length > 0;
def capture(re; flags): match(re; flags) | [.captures[] | select(.name != null) | {(.name): .string}] | add(.[]) // {};
def scan(re; flags): match(re; "g" + flags) | if .captures == [] then .string else [.captures[].string] end;
def sub(re; f; flags): . as $in
  | [matches(re; flags)[]] as $found
  | reduce $found[] as $m ({at: 0, out: ""};
      ($m | [.captures[] | select(.name != null) | {(.name): .string}] | add(.[]) // {} | f) as $new
      | {at: ($m.offset + $m.length), out: (.out + $in[.at:$m.offset] + $new)})
  | .out + $in[.at:];
def gsub(re; f; flags): sub(re; f; "g" + flags);
def test(re): test(re; "");
def match(re): match(re; "");
def capture(re): capture(re; "");
def scan(re): scan(re; "");
def sub(re; f): sub(re; f; "");
def gsub(re; f): sub(re; f; "g");
def @text: tostring;
def @json: tojson;
def @uri: tostring | encode_uri;
def @urid: tostring | decode_uri;
def @base64: tostring | encode_base64;
def @base64d: tostring | decode_base64;
"#;
