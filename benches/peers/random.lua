-- wrk: every request asks for one of COUNT objects of SIZE, each as likely as any other.
local size, count = os.getenv("SIZE"), tonumber(os.getenv("COUNT"))
math.randomseed(os.time())
function request()
  return wrk.format("GET", "/" .. size .. "/" .. math.random(count))
end
