def figure(results): raise NotImplementedError
