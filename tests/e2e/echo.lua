-- The service behind the gateway, and a look at what LuaJIT makes of argument lists.

local cjson = require "cjson.safe"
local msgpack = require "MessagePack"

local _M = {}

-- Answers with what arrived. Header bytes go into the JSON as they are, the body in base64.
function _M.upstream()
  ngx.req.read_body()
  local path = ngx.req.get_body_file()
  local body = ngx.req.get_body_data()
  if path then
    local file = assert(io.open(path, "rb"))
    body = file:read("*a")
    file:close()
  end
  ngx.header["Content-Type"] = "application/json"
  ngx.print(cjson.encode({
    method = ngx.req.get_method(),
    uri = ngx.var.request_uri,
    headers = ngx.req.get_headers(0),
    body = ngx.encode_base64(body or ""),
  }))
end

-- Takes a msgpack array of argument lists; answers with the strings of each that reach a function
-- called as f(unpack(args)).
function _M.shapes()
  ngx.req.read_body()
  local answer = {}
  for i, args in ipairs(msgpack.unpack(ngx.req.get_body_data())) do
    local function reached(...)
      local out = {}
      for j = 1, select("#", ...) do
        out[j] = select(j, ...) or "-"
      end
      return table.concat(out)
    end
    answer[i] = reached(unpack(args))
  end
  ngx.print(cjson.encode(answer))
end

return _M
